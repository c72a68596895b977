// SPDX-License-Identifier: GPL-2.0
/* TCP segments that are sent again: by clients and backends, as they pass, and by the appliance's own sockets.
 *
 * What comes with sequence numbers that were there before was lost behind us, or on the way back to its sender; or it was overtaken,
 * which looks the same.
 */
#include <packet.h>
#include <scope.h>

enum { PASSED = 1, OWN = 2 };

struct passing {
	struct ends ends;
	u32 ifindex;              /* a bridge and its port show the same packet twice */
};

struct total {
	struct ends ends;
	u32 who;
};

struct event {
	u64 time;
	struct total about;
};

BPF_TABLE("lru_hash", struct passing, u32, highest, 65536);
BPF_HASH(totals, struct total, u64, 16384);

static __always_inline void tell(void *context, struct total *total)
{
	struct event event = {};

	if (!is_concerned(&total->ends))
		return;
	event.time = bpf_ktime_get_ns();
	totals.increment(*total);
	if (!event_is_due(event.time))
		return;
	event.about = *total;
	events.perf_submit(context, &event, sizeof(event));
}

RAW_TRACEPOINT_PROBE(net_dev_queue)
{
	note((const void *)ctx->args[0]);
	return 0;
}

RAW_TRACEPOINT_PROBE(netif_receive_skb)
{
	const void *skb = (const void *)ctx->args[0], *device = packet_device(skb);
	struct total total = {};
	struct segment segment = {};
	struct passing key = {};
	u32 end, *held;

	if (!is_device_ours(device) || !packet_parse(packet_arrived(skb), &key.ends, &segment) ||
	    key.ends.protocol != TCP)
		return 0;
	end = segment.sequence + segment.length + !!(segment.flags & SYN) + !!(segment.flags & FIN);
	if (end == segment.sequence)
		return 0;
	key.ifindex = device_number(device);
	held = highest.lookup(&key);
	/* A new connection may have any number. */
	if (!held || (segment.flags & SYN && *held != end)) {
		highest.update(&key, &end);
		return 0;
	}
	if ((s32)(end - *held) > 0) {
		*held = end;
		return 0;
	}
	/* One byte again: whoever asks whether the other side is still there (RFC 9293 section 3.8.4). */
	if (end == *held && segment.length == 1 && !(segment.flags & (SYN | FIN)))
		return 0;
	total.who = PASSED;
	total.ends = key.ends;
	tell(ctx, &total);
	return 0;
}

RAW_TRACEPOINT_PROBE(tcp_retransmit_skb)
{
	const void *socket = (const void *)ctx->args[0];
	struct total total = {};
	struct ends *ends = &total.ends;
	u16 family = 0, port = 0;

	if (!is_socket_ours(socket))
		return 0;
	total.who = OWN;
	ends->protocol = TCP;
	FIELD(family, socket, OFFSET_SOCK_FAMILY);
	if (family == 2) {
		address_v4(ends->source, (const char *)socket + OFFSET_SOCK_SOURCE_V4);
		address_v4(ends->destination, (const char *)socket + OFFSET_SOCK_DESTINATION_V4);
	} else {
		FIELD(ends->source, socket, OFFSET_SOCK_SOURCE_V6);
		FIELD(ends->destination, socket, OFFSET_SOCK_DESTINATION_V6);
	}
	FIELD(ends->source_port, socket, OFFSET_SOCK_SOURCE_PORT);
	FIELD(port, socket, OFFSET_SOCK_DESTINATION_PORT);
	ends->destination_port = from_network16(port);
	tell(ctx, &total);
	return 0;
}
