/* SPDX-License-Identifier: GPL-2.0 */
/* Which rule decides traffic that passes through to where it asked for.
 *
 * Three dimensions, each of which puts a packet into a class: source address, destination address, protocol and port.
 * A class has one bit for each rule that it satisfies; the rules that all three satisfy, with those that are for anyone in
 * a dimension, are the ones that match, and the one of lowest rank decides. Words without a bit are absent, and `transit_words` says
 * of each class which words are there: of ten thousand rules a packet looks at the one or two words that can match
 * (aggregated bit vectors: Baboescu and Varghese, SIGCOMM 2001). Numbers of rules carry no order, so that a new rule
 * moves no other.
 */
#ifndef MP_TRANSIT_H
#define MP_TRANSIT_H

#include "maps.h"
#include "packet.h"
#include "policy.h"

/* More steps than the largest table can need: each looks at a rule, a word, or 64 words. */
#define TRANSIT_STEPS (MP_RULES + MP_RULES / 64 + MP_TRANSIT_GROUPS + 1)

/* Where to search. The state of the search is in a map: on the stack the verifier would follow each of its values. */
struct transit_search {
	const struct mp_transit_words *own[MP_DIMENSIONS];
	const struct mp_transit_words *anyone[MP_DIMENSIONS];
	struct mp_transit_state *state;
};

static __always_inline __u32 transit_class(__u32 dimension, __u32 class, __u32 bank)
{
	return class | dimension << MP_CLASS_DIMENSION_SHIFT | bank << MP_CLASS_BANK_SHIFT;
}

/* The index of the port's class, or none: nothing but TCP, UDP and echo passes through. */
static __always_inline __u32 transit_port_index(const struct mp_flow_key *key)
{
	if (key->protocol == IPPROTO_TCP)
		return bpf_ntohs(key->destination_port);
	if (key->protocol == IPPROTO_UDP)
		return 65536 + bpf_ntohs(key->destination_port);
	return MP_PORT_ECHO;
}

static __always_inline __u64 transit_group(const struct transit_search *search, __u32 dimension)
{
	const struct mp_transit_words *own = search->own[dimension], *anyone = search->anyone[dimension];
	__u32 group = search->state->group & (MP_TRANSIT_GROUPS - 1);

	return (own ? own->group[group] : 0) | (anyone ? anyone->group[group] : 0);
}

/* The bits of the word under examination, in one dimension. */
static __always_inline __u64 transit_bits_of(const struct transit_search *search, __u32 dimension)
{
	const struct mp_transit_words *own = search->own[dimension], *anyone = search->anyone[dimension];
	const struct mp_transit_state *state = search->state;
	__u32 group = state->word / 64 & (MP_TRANSIT_GROUPS - 1), bit = state->word & 63;
	struct mp_bits_key key = {.class = state->classes[dimension], .word = state->word};
	__u64 found = 0, *bits;

	if (own && own->group[group] >> bit & 1) {
		bits = bpf_map_lookup_elem(&transit_bits, &key);
		found = bits ? *bits : 0;
	}
	if (anyone && anyone->group[group] >> bit & 1) {
		key.class = transit_class(dimension, MP_CLASS_ANYONE, state->bank);
		bits = bpf_map_lookup_elem(&transit_bits, &key);
		found |= bits ? *bits : 0;
	}
	return found;
}

static __always_inline void transit_look_at_rule(struct mp_transit_state *state)
{
	__u32 number = state->bank * MP_RULES + state->word * 64 + policy_lowest_bit(state->rules);
	const struct mp_transit_rule *rule = bpf_map_lookup_elem(&transit_rules, &number);

	state->rules &= state->rules - 1;
	if (rule && rule->rank <= state->rank) {
		state->found = number;
		state->rank = rule->rank;
	}
}

/* One step of bpf_loop. Returns 1 to stop. */
static long transit_step(__u32 index, void *context)
{
	const struct transit_search *search = context;
	struct mp_transit_state *state = search->state;

	if (state->rules) {
		transit_look_at_rule(state);
	} else if (state->words) {
		state->word = (state->group - 1) * 64 + policy_lowest_bit(state->words);
		state->words &= state->words - 1;
		state->rules = transit_bits_of(search, MP_DIMENSION_SOURCE);
		if (state->rules)
			state->rules &= transit_bits_of(search, MP_DIMENSION_DESTINATION);
		if (state->rules)
			state->rules &= transit_bits_of(search, MP_DIMENSION_PORT);
	} else if (state->group < MP_TRANSIT_GROUPS) {
		state->words = transit_group(search, MP_DIMENSION_SOURCE) &
			       transit_group(search, MP_DIMENSION_DESTINATION) &
			       transit_group(search, MP_DIMENSION_PORT);
		state->group++;
	} else {
		return 1;
	}
	return 0;
}

static __always_inline void transit_enter(struct transit_search *search, __u32 dimension, __u32 class)
{
	struct mp_transit_state *state = search->state;
	__u32 own = transit_class(dimension, class, state->bank);
	__u32 anyone = transit_class(dimension, MP_CLASS_ANYONE, state->bank);

	state->classes[dimension] = own;
	search->own[dimension] = bpf_map_lookup_elem(&transit_words, &own);
	/* Ports have no such class: no rule is for every protocol there is. */
	search->anyone[dimension] =
		dimension == MP_DIMENSION_PORT ? NULL : bpf_map_lookup_elem(&transit_words, &anyone);
}

/* The index of the rule of lowest rank that matches, or POLICY_NOTHING. Not static: a global function is verified once and
 * by itself (kernel 5.6), where a static one is for every state that its callers may be in. */
__noinline __u32 transit_find(const struct mp_flow_key *key, __u32 bank)
{
	struct transit_search search = {};
	__u32 zero = 0, port;
	const __u32 *class;

	search.state = bpf_map_lookup_elem(&transit_state, &zero);
	if (!key || !search.state)
		return POLICY_NOTHING;
	bank &= 1;
	port = bank * MP_PORT_CLASSES + transit_port_index(key);
	class = bpf_map_lookup_elem(&port_classes, &port);
	__builtin_memset(search.state, 0, sizeof(*search.state));
	search.state->bank = bank;
	search.state->rank = ~0u;
	search.state->found = POLICY_NOTHING;
	transit_enter(&search, MP_DIMENSION_PORT, class ? *class : MP_CLASS_STRANGER);
	transit_enter(&search, MP_DIMENSION_DESTINATION, policy_class(&key->destination, bank));
	transit_enter(&search, MP_DIMENSION_SOURCE, policy_class(&key->source, bank));
	bpf_loop(TRANSIT_STEPS, transit_step, &search, 0);
	return search.state->found;
}

static __always_inline const struct mp_transit_rule *transit_match(const struct mp_flow_key *key, __u32 bank)
{
	__u32 number = transit_find(key, bank);

	return bpf_map_lookup_elem(&transit_rules, &number);
}

#endif
