/* SPDX-License-Identifier: GPL-2.0 */
/* Rate limits: token buckets that stay exact whoever takes from them at once.
 *
 * A bucket is one time for each rate: until when what it let through is paid for at that rate (GCRA, the "theoretical
 * arrival time" of ITU-T I.371). A packet passes while that is at most a burst ahead of now, and moves it on by what it
 * costs. Raising a time that has passed is one compare-and-exchange, which may fail because another CPU has just done
 * it; paying is one atomic addition. So nobody waits or tries again, and what CPUs let through at the same instant is a
 * debt that all of them wait for: the rate is exact, the burst exceeded by a packet of each CPU at most. A
 * compare-and-exchange in a loop costs the same and has to give up somewhere, to let through or drop what it should
 * not. A spin lock costs 50 ns where this costs 4 (one bucket, two CPUs at it, kernel 6.18).
 *
 * A packet costs what it is on the wire, and a segmentation-offloaded buffer as many packets as it becomes. What passes
 * passes whole, even if it costs more than there is, and the rest is a debt: a buffer of 45 packets gets through a limit
 * of 10 a second, once in 4.5 seconds.
 *
 * Which limits hold for a client is decided when its entry in `limited` is made, and again when the limits change.
 * Clients for whom none holds have one too, so that they are not looked up again.
 */
#ifndef MP_LIMIT_H
#define MP_LIMIT_H

#include "maps.h"
#include "packet.h"
#include "route.h"

/* What is taken at once from every limit that holds. */
struct limit_take {
	const struct mp_limit_set *set;
	__u64 now;
	__u32 bank;
	__u32 over;           /* slot of the first that leaves nothing for this, or MP_LIMIT_NONE */
	__u32 opening;        /* a new flow, otherwise a packet */
	__u32 segments;
	__u32 bytes;
};

/* In the unit of `rate`; 0: that rate is not asked. */
static __always_inline __u64 limit_units(const struct limit_take *take, enum mp_rate rate)
{
	if (take->opening)
		return rate == MP_RATE_FLOWS;
	if (rate == MP_RATE_FLOWS)
		return 0;
	return rate == MP_RATE_PACKETS ? take->segments : take->bytes;
}

static __always_inline int limit_rate_is_over(const struct mp_limit *limit, const struct mp_bucket *bucket,
					      const struct limit_take *take, enum mp_rate rate)
{
	__u64 until = *(const volatile __u64 *)&bucket->until[rate];

	return limit_units(take, rate) && limit->step[rate] && until > take->now + limit->tolerance[rate];
}

static __always_inline void limit_pay_rate(const struct mp_limit *limit, struct mp_bucket *bucket,
					   const struct limit_take *take, enum mp_rate rate)
{
	__u64 until = *(const volatile __u64 *)&bucket->until[rate];
	__u64 units = limit_units(take, rate);

	if (!units || !limit->step[rate])
		return;
	if (until < take->now)
		__sync_val_compare_and_swap(&bucket->until[rate], until, take->now);
	__sync_fetch_and_add(&bucket->until[rate], units * limit->step[rate] >> MP_LIMIT_SHIFT);
}

static __always_inline int limit_is_over(const struct mp_limit *limit, const struct mp_bucket *bucket,
					 const struct limit_take *take)
{
	for (int rate = 0; rate < MP_RATES; rate++)
		if (limit_rate_is_over(limit, bucket, take, rate))
			return 1;
	return 0;
}

static __always_inline void limit_pay(const struct mp_limit *limit, struct mp_bucket *bucket,
				      const struct limit_take *take)
{
	for (int rate = 0; rate < MP_RATES; rate++)
		limit_pay_rate(limit, bucket, take, rate);
}

static __always_inline const struct mp_limit *limit_get(__u32 slot, __u32 bank)
{
	__u32 number = bank * MP_LIMITS + slot;

	return slot < MP_LIMITS ? bpf_map_lookup_elem(&limits, &number) : NULL;
}

/* A packet that opens a flow has been counted before, when it was taken for itself. */
static __always_inline void limit_count_passed(__u32 slot, const struct limit_take *take)
{
	struct mp_limit_counter *counter = bpf_map_lookup_elem(&limit_counters, &slot);

	if (!counter || take->opening)
		return;
	counter->passed_packets += take->segments;
	counter->passed_bytes += take->bytes;
}

static __always_inline void limit_count_dropped(__u32 slot, const struct limit_take *take)
{
	struct mp_limit_counter *counter = bpf_map_lookup_elem(&limit_counters, &slot);

	if (!counter)
		return;
	counter->dropped_packets += take->segments;
	counter->dropped_bytes += take->bytes;
	if (take->opening) {
		counter->passed_packets -= take->segments;
		counter->passed_bytes -= take->bytes;
	}
}

/* Steps of bpf_loop over the shared limits of the set, once to ask and once to pay. */
static long limit_ask_shared(__u32 index, void *state)
{
	struct limit_take *take = state;
	__u32 slot = index < MP_LIMIT_SHARED ? take->set->shared[index] : MP_LIMIT_NONE;
	const struct mp_bucket *bucket = bpf_map_lookup_elem(&limit_buckets, &slot);
	const struct mp_limit *limit = limit_get(slot, take->bank);

	if (limit && bucket && limit_is_over(limit, bucket, take))
		take->over = slot;
	return take->over != MP_LIMIT_NONE;
}

static long limit_pay_shared(__u32 index, void *state)
{
	const struct limit_take *take = state;
	__u32 slot = index < MP_LIMIT_SHARED ? take->set->shared[index] : MP_LIMIT_NONE;
	struct mp_bucket *bucket = bpf_map_lookup_elem(&limit_buckets, &slot);
	const struct mp_limit *limit = limit_get(slot, take->bank);

	if (limit && bucket) {
		limit_pay(limit, bucket, take);
		limit_count_passed(slot, take);
	}
	return 0;
}

/* The limit whose rate the client's own bucket keeps, if it is asked for that. */
static __always_inline const struct mp_limit *limit_own(const struct limit_take *take, enum mp_rate rate)
{
	return limit_units(take, rate) ? limit_get(take->set->own[rate], take->bank) : NULL;
}

static __always_inline void limit_ask_own(struct limit_take *take, const struct mp_limited *client)
{
	for (int rate = 0; rate < MP_RATES && take->over == MP_LIMIT_NONE; rate++) {
		const struct mp_limit *limit = limit_own(take, rate);

		if (limit && limit_rate_is_over(limit, &client->bucket, take, rate))
			take->over = take->set->own[rate];
	}
}

static __always_inline void limit_pay_own(struct limit_take *take, struct mp_limited *client)
{
	const __u16 *own = take->set->own;

	for (int rate = 0; rate < MP_RATES; rate++) {
		const struct mp_limit *limit = limit_own(take, rate);

		if (limit)
			limit_pay_rate(limit, &client->bucket, take, rate);
		/* One limit may be there for several rates. */
		if (own[rate] != MP_LIMIT_NONE && (rate < 1 || own[rate] != own[0]) && (rate < 2 || own[rate] != own[1]))
			limit_count_passed(own[rate], take);
	}
}

/* From every limit of the set, or from none: then `take->over` says which is spent, and has counted it. */
static __always_inline void limit_take_all(struct limit_take *take, struct mp_limited *client)
{
	limit_ask_own(take, client);
	if (take->over == MP_LIMIT_NONE && take->set->count)
		bpf_loop(take->set->count, limit_ask_shared, take, 0);
	if (take->over != MP_LIMIT_NONE) {
		limit_count_dropped(take->over, take);
		return;
	}
	limit_pay_own(take, client);
	if (take->set->count)
		bpf_loop(take->set->count, limit_pay_shared, take, 0);
}

/* The number of the set of limits that hold for an address; 0: none does. */
static __always_inline __u32 limit_choose(const struct mp_address *address, __u32 bank)
{
	struct mp_address_key key = {.prefix_length = 8 + 128, .bank = bank};
	const __u32 *set;

	__builtin_memcpy(key.address, address, sizeof(key.address));
	set = bpf_map_lookup_elem(&limit_prefixes, &key);
	return set ? *set : 0;
}

/* The entry of a client that has none of this generation. Generation and set are one word, so that no other CPU sees
 * the one without the other. NULL: the table is out of entries, which passes. */
static __noinline struct mp_limited *limit_meet(const struct mp_address *address, struct mp_limited *known,
						__u32 generation, __u32 bank)
{
	struct mp_limited fresh = {.set = (__u64)generation << 32 | limit_choose(address, bank)};

	if (known) {
		*(volatile __u64 *)&known->set = fresh.set;
		return known;
	}
	bpf_map_update_elem(&limited, address, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&limited, address);
}

/* The client's entry of this generation, or NULL. The key is copied: in the memory of whoever called a global function none
 * may be (kernel 6.1). */
static __always_inline struct mp_limited *limit_client(const struct mp_address *address, __u32 generation, __u32 bank)
{
	struct mp_address key = *address;
	struct mp_limited *client = bpf_map_lookup_elem(&limited, &key);

	if (client && client->set >> 32 == generation)
		return client;
	return limit_meet(&key, client, generation, bank);
}

/* Take what a packet, or the flow that it would open, costs; 0 where there was enough. A function of its own for the
 * verifier, which then checks it once and not for every way that leads here; hence the bare arguments. */
__noinline int limit_charge(const struct mp_address *address, __u32 bank, __u32 opening, __u32 segments, __u32 bytes)
{
	struct limit_take take = {};
	const __u32 *generation;
	struct mp_limited *client;
	__u32 number;

	bank &= 1;
	generation = bpf_map_lookup_elem(&limit_generations, &bank);
	if (!address || !generation || !*generation)
		return 0;
	client = limit_client(address, *generation, bank);
	if (!client || !(__u32)client->set)
		return 0;
	take.bank = bank;
	take.over = MP_LIMIT_NONE;
	take.opening = opening;
	take.segments = segments;
	take.bytes = bytes;
	number = bank * MP_LIMIT_SETS + (__u32)client->set;
	take.set = bpf_map_lookup_elem(&limit_sets, &number);
	if (!take.set)
		return 0;
	take.now = bpf_ktime_get_ns();
	limit_take_all(&take, client);
	return take.over != MP_LIMIT_NONE;
}

static __always_inline enum mp_reason limit_ask(const struct packet *packet, const struct mp_address *address,
						__u32 bank, int opening)
{
	return limit_charge(address, bank, opening, packet->segments, packet->wire_bytes) ? MP_RATE_LIMITED : MP_NONE;
}

/* A packet of no flow is its source's. */
static __always_inline enum mp_reason limit_packet(const struct packet *packet, const struct mp_settings *current,
						   __u32 bank)
{
	return current->limiting ? limit_ask(packet, &packet->key.source, bank, 0) : MP_NONE;
}

/* A packet that is about to open a flow. */
static __always_inline enum mp_reason limit_opening(const struct packet *packet, const struct mp_settings *current,
						    __u32 bank)
{
	return current->limiting ? limit_ask(packet, &packet->key.source, bank, 1) : MP_NONE;
}

/* A packet of a flow, in either direction, is its client's. The one that opened it was charged when there was none;
 * what XDP will hand up is charged by TC. */
static __always_inline enum mp_reason limit_flow(const struct packet *packet, const struct mp_flow *flow,
						 const struct mp_settings *current)
{
	int reply = flow->flags & MP_FLOW_REPLY;

	if (!current->limiting || (!flow->packets && !reply))
		return MP_NONE;
#ifdef MP_XDP
	if (!route_is_fresh(flow, current, packet->now) || !(flow->flags & MP_FLOW_XDP))
		return MP_NONE;
#endif
	return limit_ask(packet, reply ? &flow->destination : &packet->key.source,
			 *(const volatile __u32 *)&current->bank & 1, 0);
}

#endif
