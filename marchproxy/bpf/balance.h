/* SPDX-License-Identifier: GPL-2.0 */
/* Which backend a new flow gets. dataplane/proxy/balance.py does the same for the sockets tier.
 *
 * A pool is a run of slots, each the number of a backend, as often as its weight wants. The strategy says which slot:
 *
 *   MAGLEV             the hash of the whole tuple, modulo the table
 *   SOURCE             the hash of the client's address, modulo the same table
 *   ROUND_ROBIN        the next one; the slot after the last one counts the turns
 *   LEAST_CONNECTIONS  the better of two that the tuple draws from the table: the one that, with this flow, would
 *                      carry fewer for its weight; the first of equals
 *
 * Two draws and not the least of all: what is compared is a little old (a flow counts once it is established), and a
 * burst of new flows would all go to the one that was least loaded before it.
 */
#ifndef MP_BALANCE_H
#define MP_BALANCE_H

#include "hash.h"
#include "maps.h"

/* Established flows of a backend that takes part in LEAST_CONNECTIONS; NULL for others. */
static __noinline __s64 *balance_active(const struct mp_address *address, __be16 port)
{
	struct mp_backend_key key = {.port = port};

	if (!address)
		return NULL;
	key.address = *address;
	return bpf_map_lookup_elem(&active, &key);
}

/* A flow to that backend was established (1) or has ended (-1). User space counts again now and then. */
static __always_inline void balance_count(const struct mp_flow *client, __s64 change)
{
	__s64 *flows = balance_active(&client->destination, client->destination_port);

	if (flows)
		__sync_fetch_and_add(flows, change);
}

static __always_inline const struct mp_backend *balance_slot(const struct mp_rule *rule, __u32 slot, __u32 bank)
{
	const __u32 *chosen;
	__u32 number;

	slot = bank * MP_POOL_SLOTS + rule->pool_first + slot % rule->pool_size;
	chosen = bpf_map_lookup_elem(&pools, &slot);
	if (!chosen)
		return NULL;
	number = bank * MP_BACKENDS + *chosen;
	return bpf_map_lookup_elem(&backends, &number);
}

/* Set where the program is only asked what it would do (dataplane/kernel/rehearsal.py). Of the maps that such a program shares with the
 * ones that are attached, turns are all that a first packet changes. */
const volatile __u8 balance_rehearses;

static __always_inline __u32 balance_turn(const struct mp_rule *rule, __u32 bank)
{
	__u32 slot = bank * MP_POOL_SLOTS + rule->pool_first + rule->pool_size;
	__u32 *turns = bpf_map_lookup_elem(&pools, &slot);

	if (!turns)
		return 0;
	return balance_rehearses ? *turns : __sync_fetch_and_add(turns, 1);
}

static __always_inline __u64 balance_load(const struct mp_backend *backend)
{
	const __s64 *flows = balance_active(&backend->address, backend->port);

	return flows && *flows > 0 ? *flows + 1 : 1;
}

static __noinline const struct mp_backend *balance_lesser(const struct mp_rule *rule, __u32 hash, __u32 bank)
{
	const struct mp_backend *one, *two;

	if (!rule->pool_size)
		return NULL;
	one = balance_slot(rule, hash, bank);
	two = balance_slot(rule, hash_mix(hash, MP_BALANCE_LEAST_CONNECTIONS), bank);
	if (!one || !two || one == two)
		return one;
	return balance_load(two) * one->weight < balance_load(one) * two->weight ? two : one;
}

/* The backend of a new flow; NULL where the rule's pool has none that takes any. */
static __always_inline const struct mp_backend *balance_backend(const struct mp_rule *rule,
								const struct mp_flow_key *asked, __u32 bank)
{
	if (!rule->pool_size)
		return NULL;
	switch (rule->balance) {
	case MP_BALANCE_SOURCE:
		return balance_slot(rule, hash_source(&asked->source), bank);
	case MP_BALANCE_ROUND_ROBIN:
		return balance_slot(rule, balance_turn(rule, bank), bank);
	case MP_BALANCE_LEAST_CONNECTIONS:
		return balance_lesser(rule, hash_flow(asked), bank);
	default:
		return balance_slot(rule, hash_flow(asked), bank);
	}
}

#endif
