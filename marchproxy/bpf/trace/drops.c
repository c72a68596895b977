// SPDX-License-Identifier: GPL-2.0
/* Where the kernel drops packets, and why (kernel 5.17). What our own programs refuse and answer is not among them. */
#include <packet.h>
#include <scope.h>

#define NOT_DROPPED 1     /* reasons up to this one: the packet had done its work */

struct total {
	u64 location;             /* in the kernel's code */
	struct ends ends;
	struct label device;      /* it came in by, or was to leave by; empty: none is known any more */
	u32 reason;
	u16 ethertype;
	u16 known;                /* 0: it is not IP, or its header is not to be found: `ends` says nothing */
};

struct event {
	u64 time;
	struct total about;
};

BPF_HASH(totals, struct total, u64, 16384);

RAW_TRACEPOINT_PROBE(net_dev_queue)
{
	note((const void *)ctx->args[0]);
	return 0;
}

static __always_inline int is_ip(u16 ethertype)
{
	return ethertype == 0x0800 || ethertype == 0x86dd;
}

/* Without ends, and where our own programs drop, it is the appliance's if the interface is. */
static __always_inline int is_told(const struct total *total)
{
	if (total->known && is_concerned(&total->ends))
		return 1;
	return (!total->known || total->reason == REASON_TC_INGRESS) && is_attached(&total->device);
}

RAW_TRACEPOINT_PROBE(kfree_skb)
{
	const void *skb = (const void *)ctx->args[0], *device, *socket;
	struct event event = {};
	struct total total = {};

	event.time = bpf_ktime_get_ns();
	total.location = ctx->args[1];
	total.reason = ctx->args[2];
	if (total.reason <= NOT_DROPPED)
		return 0;
	device = packet_device(skb);
	if (!device)
		device = packet_route_device(skb);
	socket = packet_socket(skb);
#ifdef HAS_RECEIVER
	if (!socket)
		socket = (const void *)ctx->args[3];
#endif
	if (device ? !is_device_ours(device) : !socket || !is_socket_ours(socket))
		return 0;
	if (device)
		bpf_probe_read_kernel_str(total.device.text, sizeof(total.device.text),
					  (const char *)device + OFFSET_NET_DEVICE_NAME);
	total.ethertype = packet_ethertype(skb);
	/* A socket's own packet has no type yet. */
	if (!total.ethertype || is_ip(total.ethertype))
		total.known = packet_parse(packet_network(skb), &total.ends, 0);
	if (!is_told(&total))
		return 0;
	totals.increment(total);
	if (!event_is_due(event.time))
		return 0;
	event.about = total;
	events.perf_submit(ctx, &event, sizeof(event));
	return 0;
}
