// SPDX-License-Identifier: GPL-2.0
/* Where the kernel drops packets, and why (kernel 5.17). What our own programs refuse and answer is not among them. */
#include <packet.h>

#define NOT_DROPPED 1     /* reasons up to this one: the packet had done its work */

struct total {
	u64 location;             /* in the kernel's code */
	struct ends ends;
	u32 reason;
};

struct event {
	u64 time;
	struct total about;
};

BPF_HASH(totals, struct total, u64, 16384);

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
	if (!packet_parse(packet_network(skb), &total.ends, 0))
		return 0;
	totals.increment(total);
	if (!event_is_due(event.time))
		return 0;
	event.about = total;
	events.perf_submit(ctx, &event, sizeof(event));
	return 0;
}
