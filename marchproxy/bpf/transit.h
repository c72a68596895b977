/* SPDX-License-Identifier: GPL-2.0 */
/* Which rule decides traffic that passes through to where it asked for.
 *
 * Three dimensions, each of which puts a packet into a class: source address, destination address, protocol and port.
 * A class has one bit for each rule that it satisfies; the rules that all three satisfy, with those that are for anyone in
 * a dimension, are the ones that match, and the one of lowest rank decides. A digest of each class says which words of 64
 * rules it may have and holds the first of them, so that of ten thousand rules a packet looks at the one or two words
 * that can match (aggregated bit vectors: Baboescu and Varghese, SIGCOMM 2001). Numbers of rules carry no order, so that
 * a new rule moves no other.
 */
#ifndef MP_TRANSIT_H
#define MP_TRANSIT_H

#include "maps.h"
#include "packet.h"
#include "policy.h"

/* More steps than the largest table can need: each looks at a rule, or goes on to the next word. */
#define TRANSIT_STEPS (MP_RULES + MP_RULES / 64 + 1)

/* Where to search. The state of the search is in a map: on the stack the verifier would follow each of its values. */
struct transit_search {
	const struct mp_transit_digest *own[MP_DIMENSIONS];
	const struct mp_transit_digest *anyone[MP_DIMENSIONS];
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

static __always_inline __u64 transit_residues(const struct transit_search *search, __u32 dimension)
{
	const struct mp_transit_digest *own = search->own[dimension], *anyone = search->anyone[dimension];

	return (own ? own->residues : 0) | (anyone ? anyone->residues : 0);
}

/* The rules of a word that a class satisfies. `tagged`: the class as in `mp_bits_key`. */
static __always_inline __u64 transit_word(const struct mp_transit_digest *digest, __u32 tagged, __u32 word)
{
	struct mp_bits_key key = {.class = tagged, .word = word};
	const __u64 *bits;

	if (!digest || !(digest->residues >> (word & 63) & 1))
		return 0;
	if (digest->word == word)
		return digest->rules;
	if (!digest->more)
		return 0;
	bits = bpf_map_lookup_elem(&transit_bits, &key);
	return bits ? *bits : 0;
}

static __always_inline __u64 transit_rules_of(const struct transit_search *search, __u32 dimension)
{
	const struct mp_transit_state *state = search->state;

	return transit_word(search->own[dimension], state->classes[dimension], state->word) |
	       transit_word(search->anyone[dimension], transit_class(dimension, MP_CLASS_ANYONE, state->bank),
			    state->word);
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

/* Go to the next word that may be there: of the same residue, or the first of the next one. Returns 1 where none is left. */
static __always_inline int transit_next_word(struct mp_transit_state *state)
{
	if (state->word + 64 < state->end) {
		state->word += 64;
		return 0;
	}
	if (!state->residues)
		return 1;
	state->word = policy_lowest_bit(state->residues);
	state->residues &= state->residues - 1;
	return 0;
}

/* One step of bpf_loop. Returns 1 to stop. */
static long transit_step(__u32 index, void *context)
{
	const struct transit_search *search = context;
	struct mp_transit_state *state = search->state;

	if (state->rules) {
		transit_look_at_rule(state);
		return 0;
	}
	if (transit_next_word(state))
		return 1;
	state->rules = transit_rules_of(search, MP_DIMENSION_SOURCE);
	if (state->rules)
		state->rules &= transit_rules_of(search, MP_DIMENSION_DESTINATION);
	if (state->rules)
		state->rules &= transit_rules_of(search, MP_DIMENSION_PORT);
	return 0;
}

static __always_inline const struct mp_transit_digest *transit_digest(__u32 dimension, __u32 class, __u32 bank)
{
	__u32 index = (bank * MP_DIMENSIONS + dimension) * MP_CLASSES + class;

	return class < MP_CLASSES ? bpf_map_lookup_elem(&transit_digests, &index) : NULL;
}

static __always_inline void transit_enter(struct transit_search *search, __u32 dimension, __u32 class)
{
	struct mp_transit_state *state = search->state;

	state->classes[dimension] = transit_class(dimension, class, state->bank);
	search->own[dimension] = transit_digest(dimension, class, state->bank);
	/* Ports have no such class: no rule is for every protocol there is. */
	search->anyone[dimension] =
		dimension == MP_DIMENSION_PORT ? NULL : transit_digest(dimension, MP_CLASS_ANYONE, state->bank);
}

/* The index of the rule of lowest rank that matches, or POLICY_NOTHING. Not static: a global function is verified once and
 * by itself (kernel 5.6), where a static one is for every state that its callers may be in. */
__noinline __u32 transit_find(const struct mp_flow_key *key, __u32 bank)
{
	struct transit_search search = {};
	__u32 zero = 0, port, source, destination;
	const __u32 *class, *extent;

	bank &= 1;
	extent = bpf_map_lookup_elem(&transit_extents, &bank);
	search.state = bpf_map_lookup_elem(&transit_state, &zero);
	if (!key || !search.state || !extent || !*extent)
		return POLICY_NOTHING;
	policy_fetch(&key->destination, bank);
	policy_fetch(&key->source, bank);
	destination = policy_class(&key->destination, bank);
	source = policy_class(&key->source, bank);
	port = bank * MP_PORT_CLASSES + transit_port_index(key);
	class = bpf_map_lookup_elem(&port_classes, &port);
	__builtin_memset(search.state, 0, sizeof(*search.state));
	search.state->bank = bank;
	search.state->rank = ~0u;
	search.state->found = POLICY_NOTHING;
	transit_enter(&search, MP_DIMENSION_PORT, class ? *class : MP_CLASS_STRANGER);
	transit_enter(&search, MP_DIMENSION_DESTINATION, destination);
	transit_enter(&search, MP_DIMENSION_SOURCE, source);
	search.state->residues = transit_residues(&search, MP_DIMENSION_SOURCE) &
				 transit_residues(&search, MP_DIMENSION_DESTINATION) &
				 transit_residues(&search, MP_DIMENSION_PORT);
	/* As if the last word of a residue had been looked at. */
	search.state->end = *extent;
	search.state->word = *extent;
	bpf_loop(TRANSIT_STEPS, transit_step, &search, 0);
	return search.state->found;
}

static __always_inline const struct mp_transit_rule *transit_match(const struct mp_flow_key *key, __u32 bank)
{
	__u32 number = transit_find(key, bank);

	return bpf_map_lookup_elem(&transit_rules, &number);
}

#endif
