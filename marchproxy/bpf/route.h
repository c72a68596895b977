/* SPDX-License-Identifier: GPL-2.0 */
/* The way out of a flow: looked up once a second or when routes change, and kept in the flow in between. */
#ifndef MP_ROUTE_H
#define MP_ROUTE_H

#include "maps.h"
#include "packet.h"

#define ROUTE_LIFETIME 1000000000ull /* ns */
#define AF_INET 2
#define AF_INET6 10

enum route_state {
	ROUTE_READY = 0,      /* next hop's link address known */
	ROUTE_NEIGHBOUR = 1,  /* way out known, link address not yet */
	ROUTE_LOCAL = 2,      /* the destination is this host */
	ROUTE_NONE = 3,
	ROUTE_OFF = 4,        /* forwarding is switched off on the interface it came in by */
};

struct route {
	struct bpf_fib_lookup fib;
	enum route_state state;
};

static __always_inline void route_lookup(struct route *route, mp_context *context, const struct mp_address *source,
					 const struct mp_address *destination, __u8 protocol)
{
	struct bpf_fib_lookup *fib = &route->fib;
	long result;

	__builtin_memset(fib, 0, sizeof(*fib));
	if (address_is_v4(destination)) {
		fib->family = AF_INET;
		fib->ipv4_src = source->word[3];
		fib->ipv4_dst = destination->word[3];
	} else {
		fib->family = AF_INET6;
		__builtin_memcpy(fib->ipv6_src, source, sizeof(*source));
		__builtin_memcpy(fib->ipv6_dst, destination, sizeof(*destination));
	}
	fib->l4_protocol = protocol;
	fib->ifindex = packet_ingress(context);
	/* A length that fits every MTU: the answer then carries the route's MTU (kernel 5.13), which a length of 0 does not. */
	fib->tot_len = 1;
	result = bpf_fib_lookup(context, fib, sizeof(*fib), 0);
	if (result == BPF_FIB_LKUP_RET_SUCCESS)
		route->state = ROUTE_READY;
	else if (result == BPF_FIB_LKUP_RET_NO_NEIGH)
		route->state = ROUTE_NEIGHBOUR;
	else if (result == BPF_FIB_LKUP_RET_NOT_FWDED)
		route->state = ROUTE_LOCAL;
	else if (result == BPF_FIB_LKUP_RET_FWD_DISABLED)
		route->state = ROUTE_OFF;
	else
		route->state = ROUTE_NONE;
}

static __always_inline int route_is_fresh(const struct mp_flow *flow, const struct mp_settings *current, __u64 now)
{
	return flow->route_checked && flow->route_epoch == current->route_epoch &&
	       now - flow->route_checked < ROUTE_LIFETIME;
}

static __always_inline void route_keep(struct mp_flow *flow, const struct route *route,
				       const struct mp_settings *current, __u64 now)
{
	__u32 ifindex = route->fib.ifindex;
	const struct mp_interface *interface = bpf_map_lookup_elem(&interfaces, &ifindex);

	flow->ifindex = ifindex;
	flow->mtu = route->fib.mtu_result > 1 ? route->fib.mtu_result : 0;
	__builtin_memcpy(flow->next_hop, route->fib.dmac, sizeof(flow->next_hop));
	__builtin_memcpy(flow->own_mac, route->fib.smac, sizeof(flow->own_mac));
	if (interface && interface->native_xdp)
		flow->flags |= MP_FLOW_XDP;
	else
		flow->flags &= ~MP_FLOW_XDP;
	flow->route_epoch = current->route_epoch;
	flow->route_checked = now;
}

#endif
