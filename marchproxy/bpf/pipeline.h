/* SPDX-License-Identifier: GPL-2.0 */
/* What happens to a packet, in order, with one counted exit.
 *
 * The same source is compiled for TC and for XDP. On an interface in an XDP mode both are attached: XDP decides and forwards what it
 * can finish by itself (a flow whose way out is known and takes frames), drops and refuses what is denied, and hands
 * everything else up whole, HANDED_UP, to TC, which has the kernel's neighbour resolution at hand.
 */
#ifndef MP_PIPELINE_H
#define MP_PIPELINE_H

#include "balance.h"
#include "facts.h"
#include "flow.h"
#include "fragment.h"
#include "limit.h"
#include "maps.h"
#include "packet.h"
#include "parse.h"
#include "policy.h"
#include "refuse.h"
#include "rewrite.h"
#include "route.h"

#ifndef MP_XDP
#include "mss.h"
#endif

struct verdict {
	enum mp_reason reason;
	int action;
	__u32 mapping;        /* that decided, 0: none */
	__u32 mtu;            /* with TOO_BIG */
	__u8 sent;            /* `action` is final: nothing is to be refused or dropped */
};

static __always_inline void verdict_host(struct verdict *verdict)
{
	verdict->reason = MP_PASSED_TO_HOST;
	verdict->action = packet_pass();
	verdict->sent = 1;
}

static __always_inline void verdict_sent(struct verdict *verdict, int action)
{
	verdict->reason = MP_FORWARDED;
	verdict->action = action;
	verdict->sent = 1;
}

#ifdef MP_XDP

static __always_inline void pipeline_hand_up(struct verdict *verdict)
{
	verdict->reason = MP_HANDED_UP;
	verdict->action = XDP_PASS;
	verdict->sent = 1;
}

/* XDP finishes only what needs no look-up of the way out. */
static __always_inline void pipeline_send(const struct packet *packet, struct mp_flow *flow,
					  const struct mp_settings *current, struct verdict *verdict, __u64 now)
{
	if (!route_is_fresh(flow, current, now) || !(flow->flags & MP_FLOW_XDP) || packet->tcp_flags & TCP_SYN) {
		pipeline_hand_up(verdict);
		return;
	}
	if (flow->mtu && packet_largest(packet) > flow->mtu) {
		verdict->reason = MP_TOO_BIG;
		verdict->mtu = flow->mtu;
		return;
	}
	flow_count(flow, packet, now);
	if (rewrite(packet, flow) || rewrite_link(packet, flow)) {
		verdict->reason = MP_MALFORMED;
		return;
	}
	verdict_sent(verdict, packet_redirect(flow->ifindex));
}

#else

/* Look the way out up again and keep it. Returns 0, or -1 where there is none. */
static __noinline int pipeline_refresh(const struct packet *packet, struct mp_flow *flow,
				       const struct mp_settings *current, __u64 now, struct bpf_redir_neigh *next_hop)
{
	struct route route;

	route_lookup(&route, packet->context, &flow->source, &flow->destination, packet->key.protocol);
	if (route.state != ROUTE_READY && route.state != ROUTE_NEIGHBOUR)
		return -1;
	route_keep(flow, &route, current, route.state == ROUTE_READY ? now : 0);
	next_hop->nh_family = route.fib.family;
	__builtin_memcpy(next_hop->ipv6_nh, route.fib.ipv6_dst, sizeof(next_hop->ipv6_nh));
	return 0;
}

/* A packet that refreshed its flow's way out goes through the kernel's neighbour table, which resolves, queues meanwhile, and
 * so is told once a second that the entry is in use. All others take the addresses that the flow keeps. */
static __always_inline void pipeline_send(const struct packet *packet, struct mp_flow *flow,
					  const struct mp_settings *current, struct verdict *verdict, __u64 now)
{
	int fresh = route_is_fresh(flow, current, now);
	struct bpf_redir_neigh next_hop = {};

	if (!fresh && pipeline_refresh(packet, flow, current, now, &next_hop)) {
		verdict->reason = MP_NO_ROUTE;
		return;
	}
	if (flow->mtu && packet_largest(packet) > flow->mtu) {
		verdict->reason = MP_TOO_BIG;
		verdict->mtu = flow->mtu;
		return;
	}
	flow_count(flow, packet, now);
	if ((packet->tcp_flags & TCP_SYN && mss_clamp(packet, flow->mtu)) ||
	    (fresh && rewrite_link(packet, flow)) || rewrite(packet, flow)) {
		verdict->reason = MP_MALFORMED;
		return;
	}
	verdict_sent(verdict, fresh ? packet_redirect(flow->ifindex) :
				      (int)bpf_redirect_neigh(flow->ifindex, &next_hop, sizeof(next_hop), 0));
}

#endif

/* What no flow may carry, whatever its state. */
static __always_inline enum mp_reason pipeline_unfit(const struct packet *packet)
{
	if (packet->ttl <= 1)
		return MP_TTL_EXPIRED;
	return packet->options ? MP_UNSUPPORTED : MP_NONE;
}

/* A packet of a flow that is being opened or has closed: the entry to send it by. NULL with a reason refuses it; NULL
 * with MP_NONE means that the tuple is free and the packet opens something new. */
static __noinline struct mp_flow *pipeline_opening(struct packet *packet, struct mp_flow *flow,
						   struct verdict *verdict)
{
	int opens = packet->key.protocol == IPPROTO_TCP && packet->tcp_flags & TCP_SYN &&
		    !(packet->tcp_flags & TCP_ACK);

	if (opens && !(flow->flags & MP_FLOW_REPLY) &&
	    (flow->state == MP_STATE_CLOSED || !flow_is_whole(packet, flow))) {
		packet->port_before = flow->source_port;
		flow_forget(packet, flow);
		return NULL;
	}
	if (flow->state == MP_STATE_OPENING && flow->flags & MP_FLOW_REPLY)
		flow_answered(packet, flow);
	if (!flow_is_proof(packet, flow))
		return flow;
	verdict->mapping = flow->mapping;
	flow = flow_establish(packet, flow);
	if (!flow)
		verdict->reason = MP_FLOW_TABLE_FULL;
	return flow;
}

/* The listener the packet asks for, if any. `local`: the destination is one of this host's addresses. */
static __always_inline const struct mp_listener *pipeline_listener(const struct packet *packet, int local, __u32 bank)
{
	const struct mp_listener *listener;

	if (packet->key.protocol != IPPROTO_TCP && packet->key.protocol != IPPROTO_UDP)
		return NULL;
	listener = policy_listener(&packet->key, 0, bank);
	if (listener || !local)
		return listener;
	return policy_listener(&packet->key, 1, bank);
}

static __always_inline int pipeline_is_management(const struct packet *packet)
{
	__u32 zero = 0;
	const struct mp_management *guard = bpf_map_lookup_elem(&management, &zero);
	__u16 port = bpf_ntohs(packet->key.destination_port);

	if (!guard || packet->key.protocol != IPPROTO_TCP)
		return 0;
	return guard->tcp[port >> 6] >> (port & 63) & 1;
}

/* A new conversation at a listener. On MP_NONE its flow is open. */
static __always_inline enum mp_reason pipeline_admit(const struct packet *packet, const struct mp_listener *listener,
						     const struct mp_settings *current, __u32 bank,
						     struct verdict *verdict)
{
	const struct mp_backend *backend;
	const struct mp_rule *rule;
	enum mp_reason reason;

	if (packet->key.protocol == IPPROTO_TCP &&
	    (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN)
		return MP_NO_FLOW;
	rule = policy_match(listener, &packet->key.source, bank);
	if (!rule)
		return MP_NO_MAPPING;
	verdict->mapping = rule->mapping;
	if (rule->reason != MP_FORWARDED)
		return rule->reason;
	reason = pipeline_unfit(packet);
	if (reason != MP_NONE)
		return reason;
	backend = balance_backend(rule, &packet->key, bank);
	if (!backend)
		return MP_NO_BACKEND;
	if (address_is_unset(&backend->source))
		return MP_NO_ROUTE;
	reason = limit_opening(packet, current, bank);
	if (reason != MP_NONE)
		return reason;
	return flow_open(packet, rule, backend, current);
}

static __noinline enum route_state pipeline_whereto(const struct packet *packet)
{
	struct route route;

	route_lookup(&route, packet->context, &packet->key.source, &packet->key.destination, packet->key.protocol);
	return route.state;
}

/* Neither table knows the tuple. The entry of the flow it opened, or NULL with a reason. */
static __noinline struct mp_flow *pipeline_unknown(const struct packet *packet, const struct mp_settings *current,
						   struct verdict *verdict)
{
	enum route_state route = pipeline_whereto(packet);
	/* Read once: a switch of banks in between must not have one's listener choose among the other's rules. */
	__u32 bank = *(const volatile __u32 *)&current->bank & 1;
	const struct mp_listener *listener;
	struct mp_flow *flow;

	if (route == ROUTE_OFF || (route == ROUTE_LOCAL && (pipeline_is_management(packet) ||
							    packet->fragment == MP_LATER_FRAGMENT))) {
		verdict_host(verdict);
		return NULL;
	}
	if (packet->fragment == MP_LATER_FRAGMENT) {
		verdict->reason = MP_FRAGMENT;
		return NULL;
	}
	listener = pipeline_listener(packet, route == ROUTE_LOCAL, bank);
	if (!listener && route == ROUTE_LOCAL) {
		verdict_host(verdict);
		return NULL;
	}
	verdict->reason = limit_packet(packet, current, bank);
	if (verdict->reason != MP_NONE)
		return NULL;
	if (!listener) {
		verdict->reason = route == ROUTE_NONE ? MP_NO_ROUTE : MP_NO_MAPPING;
		return NULL;
	}
	verdict->reason = pipeline_admit(packet, listener, current, bank, verdict);
	if (verdict->reason != MP_NONE)
		return NULL;
	flow = bpf_map_lookup_elem(&opening, &packet->key);
	if (!flow)
		verdict->reason = MP_FLOW_TABLE_FULL;
	return flow;
}

static __always_inline void pipeline_decide(struct packet *packet, const struct mp_settings *current,
					    struct verdict *verdict)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct mp_flow *flow = NULL;

	if (packet->fragment != MP_LATER_FRAGMENT || !fragment_recall(packet)) {
		flow = bpf_map_lookup_elem(&flows, &packet->key);
		if (!flow) {
			flow = bpf_map_lookup_elem(&opening, &packet->key);
			if (flow)
				flow = pipeline_opening(packet, flow, verdict);
		}
	}
	if (!flow && verdict->reason == MP_NONE)
		flow = pipeline_unknown(packet, current, verdict);
	if (!flow)
		return;
	verdict->mapping = flow->mapping;
	verdict->reason = limit_flow(packet, flow, current, now);
	if (verdict->reason == MP_NONE)
		verdict->reason = pipeline_unfit(packet);
	if (verdict->reason != MP_NONE)
		return;
	if (packet->fragment == MP_FIRST_FRAGMENT)
		fragment_remember(packet);
	pipeline_send(packet, flow, current, verdict, now);
	if (verdict->reason == MP_FORWARDED && flow->state == MP_STATE_ESTABLISHED &&
	    (packet->tcp_flags & (TCP_FIN | TCP_RST) || flow->flags & MP_FLOW_PEER_FIN))
		flow_follow_tcp(packet, flow);
}

static __always_inline int pipeline(mp_context *context)
{
	const struct mp_settings *current = settings_get();
	struct verdict verdict = {};
	struct packet packet = {};

	if (!current)
		return packet_pass();
	verdict.reason = parse(context, &packet);
	packet.context = context;
	if (verdict.reason == MP_PASSED_TO_HOST)
		verdict_host(&verdict);
	else if (verdict.reason == MP_NONE)
		pipeline_decide(&packet, current, &verdict);
#ifdef MP_XDP
	if (verdict.reason == MP_PASSED_TO_HOST)
		verdict.reason = MP_HANDED_UP;
#endif
	facts_count(verdict.reason, &packet);
	if (verdict.sent)
		return verdict.action;
	facts_count_denied(&packet, MP_EVENT_DENIED, verdict.reason, verdict.mapping);
	facts_tell_denied(&packet, MP_EVENT_DENIED, verdict.reason, verdict.mapping, current);
	if (verdict.reason == MP_MALFORMED || verdict.reason == MP_UNSUPPORTED || verdict.reason == MP_FRAGMENT ||
	    verdict.reason == MP_RATE_LIMITED)
		return packet_drop();
	return refuse(&packet, verdict.reason, current, verdict.mtu);
}

#endif
