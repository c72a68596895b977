/* SPDX-License-Identifier: GPL-2.0 */
/* Later fragments have no ports: they go where their first fragment went (RFC 6146 section 3.4 has the same rule).
 *
 * One that overtakes its first finds nothing and is dropped, as FRAGMENT: keeping it would mean buffering for strangers.
 */
#ifndef MP_FRAGMENT_H
#define MP_FRAGMENT_H

#include "maps.h"
#include "packet.h"

static __always_inline void fragment_key(struct mp_fragment_key *key, const struct packet *packet)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->source = packet->key.source;
	key->destination = packet->key.destination;
	key->id = packet->fragment_id;
	key->protocol = packet->key.protocol;
}

static __noinline void fragment_remember(const struct packet *packet)
{
	struct mp_fragment value = {packet->key.source_port, packet->key.destination_port};
	struct mp_fragment_key key;

	fragment_key(&key, packet);
	bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
}

/* Give a later fragment its ports. Returns 0, or -1 when its first was not seen. */
static __noinline int fragment_recall(struct packet *packet)
{
	const struct mp_fragment *value;
	struct mp_fragment_key key;

	fragment_key(&key, packet);
	value = bpf_map_lookup_elem(&fragments, &key);
	if (!value)
		return -1;
	packet->key.source_port = value->source_port;
	packet->key.destination_port = value->destination_port;
	return 0;
}

#endif
