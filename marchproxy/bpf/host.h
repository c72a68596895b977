/* SPDX-License-Identifier: GPL-2.0 */
/* Whose packets go to a TCP connection of this host: what user space carries (HTTP, tunnels, the explicit proxy) is such.
 *
 * To find that out takes a look at the routes, at two listeners and for the socket. It is remembered as the way out of a flow is:
 * for a second, or until routes or addresses change. Each CPU has a memory of its own, so nothing is read that another
 * writes. A socket that is closed meanwhile has the kernel answer what still comes for it.
 */
#ifndef MP_HOST_H
#define MP_HOST_H

#include "maps.h"
#include "packet.h"
#include "route.h"

#define HOST_HASH 0x9e3779b97f4a7c15ull

static __always_inline struct mp_host_place *host_place(const struct mp_flow_key *key)
{
	__u64 mix = (__u64)key->source.word[3] << 32 | key->destination.word[3];
	__u32 place;

	mix ^= (__u64)key->source_port << 16 | key->destination_port;
	place = (mix * HOST_HASH) >> 40 & (MP_HOST_PLACES - 1);
	return bpf_map_lookup_elem(&host_places, &place);
}

/* Whether a packet is of a connection that was found lately. */
static __always_inline int host_is_known(const struct packet *packet, const struct mp_settings *current)
{
	const struct mp_flow_key *key = &packet->key;
	const struct mp_host_place *place;

	if (key->protocol != IPPROTO_TCP || packet->opens || packet->fragment != MP_WHOLE)
		return 0;
	place = host_place(key);
	return place && place->key.source_port == key->source_port && place->key.destination_port == key->destination_port &&
	       address_equal(&place->key.source, &key->source) &&
	       address_equal(&place->key.destination, &key->destination) && place->route_epoch == current->route_epoch &&
	       packet->now - place->found < ROUTE_LIFETIME;
}

static __always_inline void host_remember(const struct packet *packet, const struct mp_settings *current)
{
	struct mp_host_place *place = host_place(&packet->key);

	if (!place)
		return;
	place->key = packet->key;
	place->route_epoch = current->route_epoch;
	place->found = packet->now;
}

#endif
