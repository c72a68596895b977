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
#include "block.h"
#include "capture.h"
#include "divert.h"
#include "facts.h"
#include "flow.h"
#include "fragment.h"
#include "host.h"
#include "icmp.h"
#include "limit.h"
#include "maps.h"
#include "packet.h"
#include "parse.h"
#include "policy.h"
#include "quic.h"
#include "refuse.h"
#include "rewrite.h"
#include "route.h"
#include "socket.h"
#include "splice.h"
#include "transit.h"

#ifndef MP_XDP
#include "mss.h"
#endif

struct verdict {
	enum mp_reason reason;
	int action;
	__u32 mapping;        /* that decided, 0: none */
	__u32 mtu;            /* with TOO_BIG */
	__u32 bank;           /* of the policy that decides */
	__u32 way_out;        /* interface that the routing table names; 0: none */
	__u8 sent;            /* `action` is final: nothing is to be refused or dropped */
	__u8 listens;         /* a listener was asked for */
};

static __always_inline void verdict_host(struct verdict *verdict)
{
	verdict->reason = MP_PASSED_TO_HOST;
	verdict->action = packet_pass();
	verdict->sent = 1;
}

/* A packet of a flow, if `reason` is not MP_NONE. */
static __always_inline void verdict_refused(struct verdict *verdict, const struct mp_flow *flow, enum mp_reason reason)
{
	verdict->reason = reason;
	verdict->mapping = flow->mapping;
}

static __always_inline void verdict_sent(struct verdict *verdict, const struct mp_flow *flow, int action)
{
	verdict->reason = flow->flags & MP_FLOW_SPLICED ? MP_HANDED_OFF : MP_FORWARDED;
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
static __noinline int pipeline_send(mp_context *context, const struct packet *packet, struct mp_flow *flow,
				    const struct mp_settings *current, struct verdict *verdict)
{
	int captured;

	if (!route_is_fresh(flow, current, packet->now) || !(flow->flags & MP_FLOW_XDP) || packet->tcp_flags & TCP_SYN) {
		pipeline_hand_up(verdict);
		return 0;
	}
	if (flow->mtu && packet_largest(context, packet) > flow->mtu) {
		verdict_refused(verdict, flow, MP_TOO_BIG);
		verdict->mtu = flow->mtu;
		return 0;
	}
	flow_count(flow, packet);
	captured = capture_is_on(current) && capture_came(context, packet, flow);
	if (rewrite(context, packet, flow) || rewrite_link(context, packet, flow)) {
		verdict_refused(verdict, flow, MP_MALFORMED);
		return 0;
	}
	if (captured)
		capture_left(context, packet, flow, 1);
	verdict_sent(verdict, flow, packet_redirect(flow->ifindex));
	return 0;
}

#else

/* On its way to where its client asked for, and no error about such a packet. */
static __always_inline int pipeline_is_transit(const struct packet *packet, const struct mp_flow *flow)
{
	return !(flow->flags & MP_FLOW_REPLY) && !packet->icmp_error &&
	       address_equal(&flow->destination, &packet->key.destination);
}

/* Whether a flow may go on by an interface: in transit its source must be one that a new flow would get there, or answers
 * would come back by another way, or to nobody. */
static __noinline int pipeline_may_leave(const struct packet *packet, const struct mp_flow *flow, __u32 ifindex)
{
	const struct mp_nat_pool *pool;

	if (!flow->ifindex || flow->ifindex == ifindex)
		return 1;
	if (!pipeline_is_transit(packet, flow))
		return !packet->icmp_error;
	pool = bpf_map_lookup_elem(&nat_pools, &ifindex);
	if (!pool)
		return address_equal(&flow->source, &packet->key.source);
	for (__u32 i = 0; i < MP_NAT_ADDRESSES; i++) {
		if (i < pool->v4_count && address_equal(&flow->source, &pool->v4[i]))
			return 1;
		if (i < pool->v6_count && address_equal(&flow->source, &pool->v6[i]))
			return 1;
	}
	return 0;
}

/* Look the way out up again and keep it. Returns MP_NONE, or why there is none.
 *
 * In transit the client's own address asks, as it did when the flow was opened: where several ways are equally good, the one
 * chosen depends on it. */
static __noinline enum mp_reason pipeline_refresh(mp_context *context, const struct packet *packet,
						  struct mp_flow *flow, const struct mp_settings *current,
						  struct bpf_redir_neigh *next_hop)
{
	const struct mp_address *from = pipeline_is_transit(packet, flow) ? &packet->key.source : &flow->source;
	struct route route;

	route_lookup(&route, context, from, &flow->destination, packet->key.protocol);
	if (route.state != ROUTE_READY && route.state != ROUTE_NEIGHBOUR)
		return MP_NO_ROUTE;
	if (!pipeline_may_leave(packet, flow, route.fib.ifindex))
		return MP_REROUTED;
	route_keep(flow, &route, current, route.state == ROUTE_READY ? packet->now : 0);
	next_hop->nh_family = route.fib.family;
	__builtin_memcpy(next_hop->ipv6_nh, route.fib.ipv6_dst, sizeof(next_hop->ipv6_nh));
	return MP_NONE;
}

/* The flow cannot go on. What comes next of its tuple opens a new one, or is of no flow. */
static __noinline void pipeline_part(const struct packet *packet, struct mp_flow *flow)
{
	if (flow->state == MP_STATE_ESTABLISHED)
		flow_end(packet, flow, MP_REROUTED);
	flow_forget(packet, flow);
}

/* A packet that refreshed its flow's way out goes through the kernel's neighbour table, which resolves, queues meanwhile, and
 * so is told once a second that the entry is in use. All others take the addresses that the flow keeps. */
static __noinline int pipeline_send(mp_context *context, const struct packet *packet, struct mp_flow *flow,
				    const struct mp_settings *current, struct verdict *verdict)
{
	int fresh = route_is_fresh(flow, current, packet->now);
	struct bpf_redir_neigh next_hop = {};
	int captured;

	verdict->reason = MP_NONE;
	if (!fresh)
		verdict_refused(verdict, flow, pipeline_refresh(context, packet, flow, current, &next_hop));
	if (verdict->reason == MP_REROUTED && !packet->icmp_error)
		pipeline_part(packet, flow);
	if (verdict->reason != MP_NONE)
		return 0;
	if (flow->mtu && packet_largest(context, packet) > flow->mtu) {
		verdict_refused(verdict, flow, MP_TOO_BIG);
		verdict->mtu = flow->mtu;
		return 0;
	}
	flow_count(flow, packet);
	captured = capture_is_on(current) && capture_came(context, packet, flow);
	if ((packet->tcp_flags & TCP_SYN && mss_clamp(context, packet, flow->mtu)) ||
	    (fresh && rewrite_link(context, packet, flow)) || rewrite(context, packet, flow)) {
		verdict_refused(verdict, flow, MP_MALFORMED);
		return 0;
	}
	if (captured)
		capture_left(context, packet, flow, fresh);
	verdict_sent(verdict, flow,
		     fresh ? packet_redirect(flow->ifindex) :
			     (int)bpf_redirect_neigh(flow->ifindex, &next_hop, sizeof(next_hop), 0));
	return 0;
}

#endif

/* Before a packet of a SPLICED flow is limited and sent: whether it may go on. While the splice drains, what XDP sees is TC's, and TC
 * lets the local socket know of it. */
static __always_inline int pipeline_splice(mp_context *context, const struct packet *packet, const struct mp_flow *flow,
					   struct verdict *verdict)
{
	const struct mp_splice *splice = splice_of(flow);

	if (!splice) {
		verdict_refused(verdict, flow, MP_NO_FLOW);
		return 0;
	}
	if (!splice_is_draining(splice) || packet->icmp_error)
		return 1;
#ifdef MP_XDP
	pipeline_hand_up(verdict);
	return 0;
#else
	if (!splice_is_over(context, packet)) {
		splice_clone(context);
		if (!splice_is_old(splice, flow, packet))
			return 1;
	}
	verdict_sent(verdict, flow, packet_drop());
	return 0;
#endif
}

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
	int opens = packet->key.protocol == IPPROTO_TCP && packet->opens;

	if (!(flow->flags & MP_FLOW_REPLY) &&
	    ((opens && flow->state == MP_STATE_CLOSED) || !flow_is_whole(packet, flow))) {
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
	const struct mp_management *guard;
	__u16 port = bpf_ntohs(packet->key.destination_port);
	__u32 zero = 0;

	if (packet->key.protocol != IPPROTO_TCP)
		return 0;
	guard = bpf_map_lookup_elem(&management, &zero);
	return guard && guard->tcp[port >> 6] >> (port & 63) & 1;
}

/* What policy says about a new conversation: MP_NONE with the terms on which it may be opened, or why it is refused. */
static __always_inline enum mp_reason pipeline_terms(mp_context *context, const struct packet *packet,
						     const struct mp_settings *current, __u32 mapping,
						     enum mp_reason reason, __u8 rule_flags, struct flow_terms *terms)
{
	enum mp_reason unfit;

	terms->mapping = mapping;
	terms->flags = 0;
	if (reason != MP_FORWARDED && !(rule_flags & MP_RULE_AUDIT))
		return reason;
	unfit = pipeline_unfit(packet);
	if (unfit == MP_NONE && reason != MP_FORWARDED) {
		terms->flags = MP_FLOW_AUDIT;
		facts_refused(context, packet, MP_EVENT_AUDITED, reason, mapping, current);
	}
	return unfit;
}

/* A new conversation at a listener. On MP_NONE its flow is open. */
static __noinline enum mp_reason pipeline_admit(mp_context *context, const struct packet *packet,
						const struct mp_listener *listener,
						const struct mp_settings *current, struct verdict *verdict)
{
	const struct mp_rule *rule = policy_match(listener, &packet->key.source, verdict->bank);
	const struct mp_backend *backend = NULL;
	struct flow_terms terms;
	enum mp_reason reason;

	if (!rule)
		return MP_NO_MAPPING;
	verdict->mapping = rule->mapping;
	reason = pipeline_terms(context, packet, current, rule->mapping, rule->reason, rule->flags, &terms);
	if (reason != MP_NONE)
		return reason;
	if (rule->flags & MP_RULE_QUIC && packet->key.protocol == IPPROTO_UDP) {
		terms.flags |= MP_FLOW_QUIC;
		backend = quic_home(context, packet, rule->mapping);
	}
	if (!backend)
		backend = balance_backend(rule, &packet->key, verdict->bank);
	if (!backend)
		return MP_NO_BACKEND;
	if (address_is_unset(&backend->source))
		return MP_NO_ROUTE;
	if (block_by(&backend->address, current))
		return MP_BLOCKED_DESTINATION;
	reason = limit_opening(packet, current, verdict->bank);
	if (reason != MP_NONE)
		return reason;
	return flow_open(context, packet, &terms, backend, current);
}

/* The source address of what leaves by an interface: the packet's own, or one of those that the interface masquerades
 * with. Unset where it should and has none. */
static __always_inline void pipeline_source(const struct packet *packet, __u32 ifindex, struct mp_address *source)
{
	const struct mp_nat_pool *pool = bpf_map_lookup_elem(&nat_pools, &ifindex);
	const struct mp_address *client = &packet->key.source;
	__u32 count, at = hash_source(client);

	*source = *client;
	if (!pool)
		return;
	__builtin_memset(source, 0, sizeof(*source));
	count = packet->version == 4 ? pool->v4_count : pool->v6_count;
	if (!count || count > MP_NAT_ADDRESSES)
		return;
	at %= count;
	/* The verifier lost the bound that the division gives. */
	barrier_var(at);
	at &= MP_NAT_ADDRESSES - 1;
	*source = packet->version == 4 ? pool->v4[at] : pool->v6[at];
}

/* A new TCP connection that user space is to look at; `otherwise` where nobody does. */
static __always_inline enum mp_reason pipeline_divert(mp_context *context, const struct packet *packet,
						      const struct mp_settings *current, struct verdict *verdict,
						      enum mp_reason otherwise)
{
	enum mp_reason limited = MP_NONE;

	if (!current->diverting)
		return otherwise;
#ifndef MP_XDP
	limited = limit_opening(packet, current, verdict->bank);
#endif
	if (limited != MP_NONE)
		return limited;
	return divert_begin(context, packet) ? otherwise : MP_PASSED_TO_HOST;
}

/* A new conversation that passes through. On MP_NONE its flow is open. */
static __noinline enum mp_reason pipeline_transit(mp_context *context, const struct packet *packet,
						  const struct mp_settings *current, struct verdict *verdict)
{
	const struct mp_transit_rule *rule = transit_match(&packet->key, verdict->bank);
	struct mp_backend towards = {
		.address = packet->key.destination,
		.port = packet->key.destination_port,
	};
	struct flow_terms terms;
	enum mp_reason reason;

	if (!rule)
		return MP_NO_MAPPING;
	verdict->mapping = rule->mapping;
	if (rule->flags & MP_RULE_DIVERT) {
		reason = pipeline_divert(context, packet, current, verdict, rule->reason);
		/* Audit lets through what nobody is there to look at. */
		if (reason != rule->reason || !(rule->flags & MP_RULE_AUDIT))
			return reason;
	}
	reason = pipeline_terms(context, packet, current, rule->mapping, rule->reason, rule->flags, &terms);
	if (reason != MP_NONE)
		return reason;
	pipeline_source(packet, verdict->way_out, &towards.source);
	if (address_is_unset(&towards.source))
		return MP_NO_NAT_PORT;
	reason = limit_opening(packet, current, verdict->bank);
	if (reason != MP_NONE)
		return reason;
	return flow_open(context, packet, &terms, &towards, current);
}

static __always_inline __u8 pipeline_role(__u32 ifindex)
{
	const struct mp_interface *interface = bpf_map_lookup_elem(&interfaces, &ifindex);

	return interface ? interface->role : MP_ROLE_NONE;
}

/* Where a packet goes by the routing table. */
static __noinline enum route_state pipeline_whereto(mp_context *context, const struct packet *packet,
						    struct verdict *verdict)
{
	struct route route;

	route_lookup(&route, context, &packet->key.source, &packet->key.destination, packet->key.protocol);
	verdict->way_out = route.state <= ROUTE_NEIGHBOUR ? route.fib.ifindex : 0;
	return route.state;
}

/* Whether the way back to the source is by the other side of the appliance: a host outside that claims an address inside,
 * or the reverse (RFC 3704 section 2.3, feasible paths: several ways on one side are fine). */
static __noinline int pipeline_is_spoofed(mp_context *context, const struct packet *packet)
{
	__u8 side = pipeline_role(packet->ingress), back;
	struct route route;

	if (side == MP_ROLE_NONE)
		return 0;
	route_lookup(&route, context, &packet->key.destination, &packet->key.source, packet->key.protocol);
	if (route.state == ROUTE_LOCAL)
		return 1;
	if (route.state > ROUTE_NEIGHBOUR)
		return 0;
	back = pipeline_role(route.fib.ifindex);
	return back != MP_ROLE_NONE && back != side;
}

/* Whether a packet to an address of this host is the host's own: nothing listens, or the host has asked for it, for that comes
 * back whatever listens at the port that it asked from. */
static __always_inline int pipeline_is_hosts(mp_context *context, const struct packet *packet,
					     const struct mp_listener *listener, const struct mp_settings *current)
{
	if (packet->key.protocol == IPPROTO_TCP && !packet->opens && socket_has_tcp(context, packet)) {
		host_remember(packet, current);
		return 1;
	}
	return !listener || (packet->key.protocol == IPPROTO_UDP && socket_has_udp(context, packet));
}

/* What becomes of a packet that neither table knows: MP_NONE when its flow is open. */
static __always_inline enum mp_reason pipeline_judge(mp_context *context, const struct packet *packet,
						     enum route_state route, const struct mp_settings *current,
						     struct verdict *verdict)
{
	const struct mp_listener *listener = pipeline_listener(packet, route == ROUTE_LOCAL, verdict->bank);
	enum mp_reason limited;
	int spoofed;

	if (route == ROUTE_LOCAL && pipeline_is_hosts(context, packet, listener, current))
		return MP_PASSED_TO_HOST;
	verdict->listens = listener != NULL;
	if (current->diverting && !listener && divert_goes_on(context, packet))
		return MP_PASSED_TO_HOST;
	/* Nobody's limits are used up by others who claim to be them. */
	spoofed = (packet->opens || current->limiting) && pipeline_is_spoofed(context, packet);
	limited = spoofed ? MP_NONE : limit_packet(packet, current, verdict->bank);
	if (limited != MP_NONE)
		return limited;
	if (!listener && route == ROUTE_NONE)
		return MP_NO_ROUTE;
	if (!packet->opens)
		return packet_has_ports(packet) || packet->icmp_error ? MP_NO_FLOW : MP_NO_MAPPING;
	if (spoofed)
		return MP_SPOOFED;
	if (listener)
		return pipeline_admit(context, packet, listener, current, verdict);
	return pipeline_transit(context, packet, current, verdict);
}

/* Neither table knows the tuple: the packet goes to the host, or is refused, or on MP_NONE its flow is open. Global, see
 * `parse`. */
__noinline int pipeline_unknown(mp_context *context, const struct packet *packet, const struct mp_settings *current,
				struct verdict *verdict)
{
	enum route_state route;

	if (!packet || !current || !verdict)
		return MP_MALFORMED;
	if (host_is_known(packet, current))
		return MP_PASSED_TO_HOST;
	/* Read once: a switch of banks in between must not have one's listener choose among the other's rules. */
	verdict->bank = *(const volatile __u32 *)&current->bank & 1;
	route = pipeline_whereto(context, packet, verdict);
	if (route == ROUTE_OFF || (route == ROUTE_LOCAL && (pipeline_is_management(packet) ||
							    packet->fragment == MP_LATER_FRAGMENT)))
		return MP_PASSED_TO_HOST;
	if (packet->fragment == MP_LATER_FRAGMENT)
		return MP_FRAGMENT;
	return pipeline_judge(context, packet, route, current, verdict);
}

/* The entry of the flow that a packet of an unknown tuple opened, or NULL with a verdict. */
static __always_inline struct mp_flow *pipeline_begin(mp_context *context, const struct packet *packet,
						      const struct mp_settings *current, struct verdict *verdict)
{
	struct mp_flow *flow;

	verdict->reason = pipeline_unknown(context, packet, current, verdict);
	if (verdict->reason == MP_PASSED_TO_HOST)
		verdict_host(verdict);
	if (verdict->reason != MP_NONE)
		return NULL;
	flow = bpf_map_lookup_elem(&opening, &packet->key);
	if (!flow)
		verdict->reason = MP_FLOW_TABLE_FULL;
	return flow;
}

/* Whether a packet may go nowhere because of its addresses; `verdict` then says so. The management guard comes first, but
 * it costs a look at the routes, and matters to blocked packets only. */
static __always_inline int pipeline_is_blocked(mp_context *context, const struct packet *packet,
					       const struct mp_settings *current, struct verdict *verdict)
{
	verdict->reason = block_verdict(packet, current, &verdict->mapping);
	if (verdict->reason == MP_NONE)
		return 0;
	if (!pipeline_is_management(packet) || pipeline_whereto(context, packet, verdict) != ROUTE_LOCAL)
		return 1;
	verdict->reason = MP_NONE;
	verdict->mapping = 0;
	return 0;
}

static __always_inline void pipeline_decide(mp_context *context, struct packet *packet, const struct mp_settings *current,
					    struct verdict *verdict)
{
	struct mp_flow *flow = NULL;

	if (pipeline_is_blocked(context, packet, current, verdict))
		return;
	if (packet->icmp_error) {
		flow = icmp_flow(context, packet, &verdict->reason);
	} else if (packet->fragment != MP_LATER_FRAGMENT || !fragment_recall(packet)) {
		flow = bpf_map_lookup_elem(&flows, &packet->key);
		if (!flow) {
			flow = bpf_map_lookup_elem(&opening, &packet->key);
			if (flow)
				flow = pipeline_opening(packet, flow, verdict);
		}
	}
	if (!flow && verdict->reason == MP_NONE)
		flow = pipeline_begin(context, packet, current, verdict);
	if (!flow)
		return;
	if (flow->flags & MP_FLOW_SPLICED && !pipeline_splice(context, packet, flow, verdict))
		return;
	verdict->reason = limit_flow(packet, flow, current);
	if (verdict->reason == MP_NONE)
		verdict->reason = pipeline_unfit(packet);
	if (verdict->reason != MP_NONE) {
		verdict_refused(verdict, flow, verdict->reason);
		return;
	}
	if (packet->fragment == MP_FIRST_FRAGMENT)
		fragment_remember(packet);
	if (flow->flags & MP_FLOW_QUIC && flow->state != MP_STATE_OPENING && !packet->icmp_error &&
	    packet->fragment != MP_LATER_FRAGMENT && quic_introduces(context, packet)) {
		if (!(flow->flags & MP_FLOW_REPLY))
			quic_home(context, packet, flow->mapping);
		else if (!pipeline_is_spoofed(context, packet))
			quic_learn(context, packet, flow->mapping);
	}
	pipeline_send(context, packet, flow, current, verdict);
	if (verdict->sent && flow->state == MP_STATE_ESTABLISHED &&
	    (packet->tcp_flags & (TCP_FIN | TCP_RST) || flow->flags & MP_FLOW_PEER_FIN))
		flow_follow_tcp(packet, flow);
}

/* Whether nobody is told why. Errors about the way (path MTU, hop limit) are always told; a denial is told to clients inside,
 * and outside only by listeners, whose ports are known to be there: to strangers the network behind has no word. */
static __always_inline int pipeline_is_silent(const struct packet *packet, const struct verdict *verdict,
					      const struct mp_settings *current)
{
	if (refuse_is_passing(verdict->reason))
		return 0;
	if (current->silent)
		return 1;
	return !verdict->listens && pipeline_role(packet->ingress) == MP_ROLE_OUTSIDE;
}

static __always_inline int pipeline(mp_context *context)
{
	const struct mp_settings *current = settings_get();
	struct verdict verdict = {};
	struct packet packet;

	if (!current)
		return packet_pass();
#ifndef MP_XDP
	if (context->mark == SPLICE_MARK)
		return splice_pass_up(context, &packet);
#endif
	verdict.reason = parse(context, &packet);
	if (verdict.reason == MP_PASSED_TO_HOST)
		verdict_host(&verdict);
	else if (verdict.reason == MP_NONE)
		pipeline_decide(context, &packet, current, &verdict);
	/* From a damaged rule: no packet goes uncounted. */
	if (verdict.reason >= MP_REASON_COUNT)
		verdict.reason = MP_NO_MAPPING;
#ifdef MP_XDP
	if (verdict.reason == MP_PASSED_TO_HOST)
		verdict.reason = MP_HANDED_UP;
#endif
	facts_count(verdict.reason, &packet);
	if (verdict.sent)
		return verdict.action;
	facts_refused(context, &packet, MP_EVENT_DENIED, verdict.reason, verdict.mapping, current);
	if (verdict.reason == MP_MALFORMED || verdict.reason == MP_UNSUPPORTED || verdict.reason == MP_FRAGMENT ||
	    verdict.reason == MP_RATE_LIMITED || verdict.reason == MP_BLOCKED_SOURCE)
		return packet_drop();
	if (pipeline_is_silent(&packet, &verdict, current))
		return packet_drop();
	return refuse(context, &packet, verdict.reason, current, verdict.mtu);
}

#endif
