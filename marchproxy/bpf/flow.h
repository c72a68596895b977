/* SPDX-License-Identifier: GPL-2.0 */
/* The flow table: finding, opening, following and ending conversations.
 *
 * A conversation has one entry for each direction, both in `opening` or both in `flows`. It is promoted to `flows` when the client has
 * shown that it receives what the backend sends: a TCP acknowledgement of the backend's SYN, or a second datagram after an
 * answer. Spoofed packets can do neither, so a flood stays in `opening`, which evicts its own oldest. When it ends it
 * goes back to `opening`, so that stragglers still find their way until newer ones push it out.
 *
 * `opening` evicts entries, not conversations: either half may be gone, and its tuple another conversation's by now. So whoever
 * goes from one half there to the other compares `id`, and a client's half that is alone carries nothing: the port that it
 * sends from may be somebody else's.
 */
#ifndef MP_FLOW_H
#define MP_FLOW_H

#include "balance.h"
#include "facts.h"
#include "hash.h"
#include "maps.h"
#include "packet.h"
#include "parse.h"
#include "policy.h"
#include "splice.h"

#define FLOW_NAT_TRIES 24

/* On what terms policy lets a conversation be opened. */
struct flow_terms {
	__u32 mapping;
	__u8 flags;           /* MP_FLOW_AUDIT, or none */
};
/* How far an acknowledgement may be ahead of the backend's SYN and still prove that the client saw it. */
#define FLOW_PROOF_WINDOW (1u << 20)

/* The key under which the other direction arrives. */
static __always_inline void flow_other_key(struct mp_flow_key *other, const struct mp_flow *flow, __u8 protocol)
{
	__builtin_memset(other, 0, sizeof(*other));
	other->source = flow->destination;
	other->destination = flow->source;
	other->source_port = flow->destination_port;
	other->destination_port = flow->source_port;
	other->protocol = protocol;
}

/* Where the search for a source port begins: the client's own port, shifted by a number of that client's. All ports of one
 * client then have their own, and a client that uses a port again gets the same one again. A server that still holds the last
 * connection in TIME_WAIT accepts the new one only if its timestamps go on, which they do only within one client tuple
 * (RFC 6191; Linux gives each tuple its own offset): with ports taken at random half of such connections wait a second. */
static __always_inline __u32 flow_first_port(const struct packet *packet, const struct mp_settings *current)
{
	__u32 before = bpf_ntohs(packet->port_before);

	if (before >= current->nat_first)
		return before - current->nat_first;
	return (hash_source(&packet->key.source) & 0xffff) + bpf_ntohs(packet->key.source_port);
}

/* Unique for as long as the machine runs, and below 2^53 for two years of it, so that JSON readers keep it exact. */
static __always_inline __u64 flow_new_id(void)
{
	return (bpf_ktime_get_ns() >> 9) << 6 | (bpf_get_smp_processor_id() & 63);
}

/* Errors about a conversation are no part of it (RFC 5508 REQ-7). */
static __always_inline void flow_count(struct mp_flow *flow, const struct packet *packet)
{
	if (packet->icmp_error)
		return;
	__sync_fetch_and_add(&flow->packets, packet->segments);
	__sync_fetch_and_add(&flow->bytes, packet->wire_bytes);
	flow->last_seen = packet->now;
	flow->tier = MP_TIER;
}

static __noinline int flow_local_socket(mp_context *context, const struct mp_flow_key *reply)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
	__u32 size;

	if (address_is_v4(&reply->source)) {
		tuple.ipv4.saddr = reply->source.word[3];
		tuple.ipv4.daddr = reply->destination.word[3];
		tuple.ipv4.sport = reply->source_port;
		tuple.ipv4.dport = reply->destination_port;
		size = sizeof(tuple.ipv4);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, &reply->source, sizeof(tuple.ipv6.saddr));
		__builtin_memcpy(tuple.ipv6.daddr, &reply->destination, sizeof(tuple.ipv6.daddr));
		tuple.ipv6.sport = reply->source_port;
		tuple.ipv6.dport = reply->destination_port;
		size = sizeof(tuple.ipv6);
	}
	if (reply->protocol != IPPROTO_TCP && reply->protocol != IPPROTO_UDP)
		return 0;
	if (reply->protocol == IPPROTO_TCP)
		socket = bpf_sk_lookup_tcp(context, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		socket = bpf_sk_lookup_udp(context, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	bpf_sk_release(socket);
	return 1;
}

static __always_inline void flow_delete(void *table, const struct mp_flow_key *key,
					const struct mp_flow_key *other_key)
{
	bpf_map_delete_elem(table, key);
	bpf_map_delete_elem(table, other_key);
}

/* Forget a half of flow `id`, unless its tuple is another's by now. */
static __always_inline void flow_delete_half(const struct mp_flow_key *key, __u64 id)
{
	const struct mp_flow *half = bpf_map_lookup_elem(&opening, key);

	if (half && half->id == id)
		bpf_map_delete_elem(&opening, key);
}

/* Take over the port of a flow in `opening`. Its stragglers, if any, are now the new flow's. */
static __noinline int flow_reclaim_port(struct mp_flow_key *reply_key, const struct mp_flow *reply)
{
	struct mp_flow_key client_key;
	const struct mp_flow *ended = bpf_map_lookup_elem(&opening, reply_key);

	if (!ended)
		return -1;
	flow_other_key(&client_key, ended, reply_key->protocol);
	flow_delete_half(&client_key, ended->id);
	bpf_map_delete_elem(&opening, reply_key);
	return bpf_map_update_elem(&opening, reply_key, reply, BPF_NOEXIST) ? -1 : 0;
}

/* How readily the port of a flow in `opening` is taken over: lowest first. One that has ended goes before one that is half
 * open; among equals the one that was silent longest. In a flood of spoofed opens that is nearly always one of its own. */
static __always_inline __u64 flow_port_worth(const struct mp_flow *flow)
{
	__u64 seen = flow->last_seen >> 1;

	return flow->state == MP_STATE_CLOSED ? seen : seen | 1ull << 63;
}

/* Claim a source port towards the backend: free in both tables and on no local socket, or else one of a flow that is not
 * established. The insert itself is the claim, so two CPUs cannot win the same one. Returns 0, or -1 without a port. */
static __always_inline int flow_claim_port(mp_context *context, const struct packet *packet,
					   const struct mp_settings *current, struct mp_flow_key *reply_key,
					   const struct mp_flow *reply)
{
	__u32 count = current->nat_count ? current->nat_count : 1;
	__u32 start = flow_first_port(packet, current);
	const struct mp_flow *taken;
	__u64 least = ~0ull;

	for (int i = 0; i < FLOW_NAT_TRIES; i++) {
		/* Without it the compiler lays the loop out so that it begins anew without a jump, which the
		 * verifier of kernel 6.1 takes for one that never ends. */
		asm volatile("");
		__u16 port = current->nat_first + (start + i * 7919u) % count;

		reply_key->destination_port = bpf_htons(port);
		taken = bpf_map_lookup_elem(&opening, reply_key);
		if (taken) {
			/* The port rides in the low bits: 65 µs finer would help nobody, and the stack is short. */
			__u64 worth = (flow_port_worth(taken) & ~0xffffull) | port;

			if (worth < least)
				least = worth;
			continue;
		}
		if (bpf_map_lookup_elem(&flows, reply_key))
			continue;
		if (bpf_map_update_elem(&opening, reply_key, reply, BPF_NOEXIST))
			continue;
		if (!flow_local_socket(context, reply_key))
			return 0;
		bpf_map_delete_elem(&opening, reply_key);
	}
	if (least == ~0ull)
		return -1;
	reply_key->destination_port = bpf_htons((__u16)least);
	return flow_reclaim_port(reply_key, reply);
}

/* Claim the tuple of a flow that keeps the client's address: nobody else may have it. Returns 0, or -1. */
static __always_inline int flow_claim_tuple(struct mp_flow_key *reply_key, const struct mp_flow *reply)
{
	if (bpf_map_lookup_elem(&flows, reply_key))
		return -1;
	if (!bpf_map_update_elem(&opening, reply_key, reply, BPF_NOEXIST))
		return 0;
	return flow_reclaim_port(reply_key, reply);
}

static __always_inline void flow_reply_key(struct mp_flow_key *key, const struct mp_backend *backend, __be16 port,
					   __u8 protocol)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->source = backend->address;
	key->destination = backend->source;
	key->source_port = backend->port;
	key->destination_port = port;
	key->protocol = protocol;
}

/* Open a conversation to `backend`, from its `source`, which is the client's own address where nothing is translated. On
 * MP_NONE both entries are in `opening`. Global, so that its loop is verified once (see `parse`). */
__noinline int flow_open(mp_context *context, const struct packet *packet, const struct flow_terms *terms,
			 const struct mp_backend *backend, const struct mp_settings *current)
{
	int claimed;
	struct mp_flow_key reply_key;
	struct mp_flow *flow;
	__u32 zero = 0;

	flow = bpf_map_lookup_elem(&scratch, &zero);
	if (!flow || !packet || !terms || !backend || !current)
		return MP_FLOW_TABLE_FULL;
	__builtin_memset(flow, 0, sizeof(*flow));
	flow->id = flow_new_id();
	flow->mapping = terms->mapping;
	flow->started = flow->last_seen = packet->now;
	flow->revision = current->revision;
	flow->state = MP_STATE_OPENING;
	flow->tier = MP_TIER;

	/* Backend to client first: inserting it claims the port. */
	flow->flags = terms->flags | MP_FLOW_REPLY;
	flow->source = packet->key.destination;
	flow->source_port = packet->key.destination_port;
	flow->destination = packet->key.source;
	flow->destination_port = packet->key.source_port;
	flow_reply_key(&reply_key, backend, packet->key.source_port, packet->key.protocol);
	if (address_equal(&backend->source, &packet->key.source)) {
		claimed = !flow_claim_tuple(&reply_key, flow);
	} else {
		claimed = !flow_claim_port(context, packet, current, &reply_key, flow);
	}
	if (!claimed)
		return MP_NO_NAT_PORT;

	flow->flags = terms->flags;
	flow->source = backend->source;
	flow->source_port = reply_key.destination_port;
	flow->destination = backend->address;
	flow->destination_port = backend->port;
	/* Not packet->key itself, see limit_charge; and the stack has no room for a second one. */
	reply_key = packet->key;
	if (bpf_map_update_elem(&opening, &reply_key, flow, BPF_ANY)) {
		flow_reply_key(&reply_key, backend, flow->source_port, packet->key.protocol);
		bpf_map_delete_elem(&opening, &reply_key);
		return MP_FLOW_TABLE_FULL;
	}
	return MP_NONE;
}

/* The entries themselves are to be found before they are counted as told, and to go after they are counted as established:
 * who counts entries in between must not miss one. */
static __always_inline void flow_count_beginning(enum mp_beginning kind)
{
	__u32 index = kind;
	__u64 *count = bpf_map_lookup_elem(&beginnings, &index);

	if (count)
		*count += 1;
}

/* Copy both directions into `table`. Returns 0, or -1 with nothing copied. */
static __always_inline int flow_copy(void *table, const struct mp_flow_key *key, const struct mp_flow *flow,
				     const struct mp_flow_key *other_key, const struct mp_flow *other)
{
	if (bpf_map_update_elem(table, key, flow, BPF_ANY))
		return -1;
	if (!bpf_map_update_elem(table, other_key, other, BPF_ANY))
		return 0;
	bpf_map_delete_elem(table, key);
	return -1;
}

/* The client's proof arrived: promote. Returns the entry in `flows`, or NULL when that table is full. */
static __noinline struct mp_flow *flow_establish(const struct packet *packet, struct mp_flow *flow)
{
	struct mp_flow_key other_key;
	struct mp_flow *other;

	flow_other_key(&other_key, flow, packet->key.protocol);
	other = bpf_map_lookup_elem(&opening, &other_key);
	if (!other || other->id != flow->id)
		return NULL;
	flow->state = other->state = MP_STATE_ESTABLISHED;
	if (flow_copy(&flows, &packet->key, flow, &other_key, other)) {
		flow->state = other->state = MP_STATE_ANSWERED;
		return NULL;
	}
	if (packet->key.protocol == IPPROTO_TCP)
		facts_flow(MP_EVENT_START, MP_FORWARDED, &packet->key, flow, other);
	else
		flow_count_beginning(MP_BEGINNING_ESTABLISHED);
	balance_count(flow, 1);
	flow_delete(&opening, &packet->key, &other_key);
	return bpf_map_lookup_elem(&flows, &packet->key);
}

/* Both sides are done, or one has reset: report, and keep the entries only for stragglers. */
static __always_inline void flow_end(const struct packet *packet, struct mp_flow *flow, enum mp_reason reason)
{
	struct mp_flow_key other_key;
	struct mp_flow *other;

	flow_other_key(&other_key, flow, packet->key.protocol);
	other = bpf_map_lookup_elem(&flows, &other_key);
	if (!other)
		return;
	if (flow->flags & MP_FLOW_REPLY)
		facts_flow(MP_EVENT_END, reason, &other_key, other, flow);
	else
		facts_flow(MP_EVENT_END, reason, &packet->key, flow, other);
	balance_count(flow->flags & MP_FLOW_REPLY ? other : flow, -1);
	flow->state = other->state = MP_STATE_CLOSED;
	flow_copy(&opening, &packet->key, flow, &other_key, other);
	flow_delete(&flows, &packet->key, &other_key);
}

/* Follow the close of an established connection. Called after the packet is counted. */
static __noinline void flow_follow_tcp(const struct packet *packet, struct mp_flow *flow)
{
	struct mp_flow_key other_key;
	struct mp_flow *other;

	if (packet->tcp_flags & TCP_RST) {
		flow_end(packet, flow, MP_RESET);
		return;
	}
	if (packet->tcp_flags & TCP_FIN && !(flow->flags & MP_FLOW_FIN)) {
		flow->flags |= MP_FLOW_FIN;
		flow_other_key(&other_key, flow, packet->key.protocol);
		other = bpf_map_lookup_elem(&flows, &other_key);
		if (other) {
			/* As the other side will acknowledge it, in its own numbers. */
			other->peer_fin_ack = packet->sequence + packet_payload(packet) + 1 + splice_distance(flow);
			other->flags |= MP_FLOW_PEER_FIN;
		}
	}
	if (!(flow->flags & MP_FLOW_PEER_FIN) || flow->flags & MP_FLOW_FIN_ACKED || !(packet->tcp_flags & TCP_ACK))
		return;
	if ((__s32)(packet->acknowledgement - flow->peer_fin_ack) < 0)
		return;
	flow->flags |= MP_FLOW_FIN_ACKED;
	flow_other_key(&other_key, flow, packet->key.protocol);
	other = bpf_map_lookup_elem(&flows, &other_key);
	if (other && other->flags & MP_FLOW_FIN_ACKED)
		flow_end(packet, flow, MP_CLOSED);
}

/* Backend's answer to a flow that is being opened: tell the client's direction, which waits for it. */
static __noinline void flow_answered(const struct packet *packet, struct mp_flow *reply)
{
	struct mp_flow_key client_key;
	struct mp_flow *client;

	if (packet->key.protocol == IPPROTO_TCP && (packet->tcp_flags & (TCP_SYN | TCP_ACK)) != (TCP_SYN | TCP_ACK))
		return;
	flow_other_key(&client_key, reply, packet->key.protocol);
	client = bpf_map_lookup_elem(&opening, &client_key);
	if (!client || client->id != reply->id)
		return;
	reply->state = MP_STATE_ANSWERED;
	client->state = MP_STATE_ANSWERED;
	client->peer_fin_ack = packet->sequence + 1;
	if (packet->key.protocol == IPPROTO_TCP)
		return;
	facts_flow(MP_EVENT_START, MP_FORWARDED, &client_key, client, reply);
	flow_count_beginning(MP_BEGINNING_TOLD);
}

/* A reset before the connection stood, or a tuple that is opened anew: forget both directions. */
static __always_inline void flow_forget(const struct packet *packet, const struct mp_flow *flow)
{
	struct mp_flow_key other_key;

	flow_other_key(&other_key, flow, packet->key.protocol);
	flow_delete_half(&other_key, flow->id);
	bpf_map_delete_elem(&opening, &packet->key);
}

/* Whether the other direction of an opening flow is still there: the table may have evicted it. */
static __always_inline int flow_is_whole(const struct packet *packet, const struct mp_flow *flow)
{
	struct mp_flow_key other_key;
	const struct mp_flow *other;

	flow_other_key(&other_key, flow, packet->key.protocol);
	other = bpf_map_lookup_elem(&opening, &other_key);
	return other && other->id == flow->id;
}

static __always_inline int flow_is_proof(const struct packet *packet, const struct mp_flow *flow)
{
	if (flow->state != MP_STATE_ANSWERED || flow->flags & MP_FLOW_REPLY)
		return 0;
	if (packet->key.protocol != IPPROTO_TCP)
		return packet->fragment != MP_LATER_FRAGMENT;
	return packet->tcp_flags & TCP_ACK && !(packet->tcp_flags & (TCP_SYN | TCP_RST)) &&
	       packet->acknowledgement - flow->peer_fin_ack < FLOW_PROOF_WINDOW;
}

#endif
