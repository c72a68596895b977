/* SPDX-License-Identifier: GPL-2.0 */
/* Hashes that decide which backend a flow gets. dataplane/proxy/balance.py computes the same; a test compares. */
#ifndef MP_HASH_H
#define MP_HASH_H

#include "marchproxy.h"

static __always_inline __u32 hash_mix(__u32 hash, __u32 value)
{
	hash ^= value;
	hash *= 0x85ebca6b;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35;
	return hash ^ hash >> 16;
}

/* Of an address alone: the same for all that one client asks for. */
static __always_inline __u32 hash_source(const struct mp_address *source)
{
	__u32 hash = hash_mix(0x9e3779b9, source->word[0]);

	hash = hash_mix(hash, source->word[1]);
	hash = hash_mix(hash, source->word[2]);
	return hash_mix(hash, source->word[3]);
}

static __always_inline __u32 hash_flow(const struct mp_flow_key *key)
{
	__u32 hash = hash_mix(hash_source(&key->source), (__u32)key->source_port << 16 | key->destination_port);

	return hash_mix(hash, key->destination.word[3] ^ key->protocol);
}

#endif
