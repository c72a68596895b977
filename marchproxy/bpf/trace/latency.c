// SPDX-License-Identifier: GPL-2.0
/* How long backends take to accept a connection, and to begin their answer.
 *
 * Measured where the appliance sends towards a backend and where that answers: for flows that the kernel carries, tunnels and the
 * appliance's own connections alike. A connection is known by its SYN, or by its backend's being in `backends`.
 */
#include <packet.h>
#include <scope.h>

enum { CONNECT = 1, REQUEST = 2, REFUSED = 3 };

struct state {
	u64 opened;               /* when the first SYN left; 0: answered */
	u64 asked;                /* when the last request left; 0: answered */
};

struct slot {
	u8 backend[16];
	u16 port;
	u8 what;
	u8 slot;                  /* binary logarithm of microseconds */
};

struct backend {
	u8 address[16];
	u16 port;
	u16 pad;
};

BPF_TABLE("lru_hash", struct ends, struct state, connections, 65536);
BPF_HASH(slots, struct slot, u64, 16384);
BPF_HASH(sums, struct slot, u64, 16384);
BPF_HASH(backends, struct backend, u8, 16384);

static __always_inline void count(const struct ends *ends, u8 what, u64 nanoseconds)
{
	struct slot key = {.port = ends->destination_port, .what = what};

	__builtin_memcpy(key.backend, ends->destination, 16);
	sums.increment(key, nanoseconds);
	key.slot = bpf_log2l(nanoseconds / 1000);
	slots.increment(key);
}

static __always_inline int is_backend(const struct ends *ends)
{
	struct backend key = {.port = ends->destination_port};

	__builtin_memcpy(key.address, ends->destination, 16);
	return backends.lookup(&key) != 0;
}

/* What leaves: connections are opened, requests asked. */
RAW_TRACEPOINT_PROBE(net_dev_queue)
{
	const void *skb = (const void *)ctx->args[0];
	struct segment segment = {};
	struct state first = {}, *state;
	struct ends ends = {};
	u64 now = bpf_ktime_get_ns();

	note(skb);
	if (!is_device_ours(packet_device(skb)) || !packet_parse(packet_network(skb), &ends, &segment) ||
	    ends.protocol != TCP)
		return 0;
	state = connections.lookup(&ends);
	if ((segment.flags & (SYN | ACK)) == SYN) {
		/* One that is sent again waits since the first. */
		if ((state && state->opened) || !is_concerned(&ends))
			return 0;
		first.opened = now;
		connections.update(&ends, &first);
	} else if (segment.length && state) {
		state->asked = state->asked ? state->asked : now;
	} else if (segment.length && is_backend(&ends)) {
		first.asked = now;
		connections.update(&ends, &first);
	}
	return 0;
}

/* What comes in: backends accept, refuse and answer. */
RAW_TRACEPOINT_PROBE(netif_receive_skb)
{
	const void *skb = (const void *)ctx->args[0];
	struct ends came = {}, ends = {};
	struct segment segment = {};
	struct state *state;
	u64 now = bpf_ktime_get_ns(), since;

	if (!is_device_ours(packet_device(skb)) || !packet_parse(packet_arrived(skb), &came, &segment) ||
	    came.protocol != TCP)
		return 0;
	turn(&ends, &came);
	state = connections.lookup(&ends);
	if (!state)
		return 0;
	if (segment.flags & RST) {
		if (state->opened)
			count(&ends, REFUSED, now - state->opened);
		connections.delete(&ends);
	} else if ((segment.flags & (SYN | ACK)) == (SYN | ACK)) {
		since = state->opened;
		state->opened = 0;
		if (since)
			count(&ends, CONNECT, now - since);
	} else if (segment.length && state->asked) {
		since = state->asked;
		state->asked = 0;
		count(&ends, REQUEST, now - since);
	}
	return 0;
}
