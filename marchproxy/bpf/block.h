/* SPDX-License-Identifier: GPL-2.0 */
/* Is an address blocked, and by what?
 *
 * User space writes all that is blocked into one array of 64-byte lines, an *image*, and puts it into the map `blocks`: one
 * pointer is exchanged, so a packet sees the old image or the new one. There are two places, layers: imported lists, which
 * are large and rarely change, and single blocks, which are few and change often. The layout is built by
 * marchproxy/dataplane/kernel/blockimage.py:
 *
 *   line 0        struct mp_block_header
 *   v4_slots      one slot for each value of the address's first bits
 *   v6_slots      one slot for each value of a hash of the address's first 48, 32, 24 or 16 bits
 *   starts        first addresses of the prefixes, IPv4 as ::ffff:a.b.c.d, two words each in host order
 *   infos         u32 each: prefix length, of 128, in the top 8 bits, owner below
 *
 * A slot says which of 32 parts of it hold anything, which is all that a clean packet looks at, and where the first start in
 * it is; the next slot says where they end. Prefixes do not overlap, so the last start that is not above the address
 * is the only one that can contain it. An IPv6 prefix is in the slot of the longest of the four lengths that is not longer than
 * itself, or in several slots of the next one. One of 48 bits or more is marked in the part of its first 32 bits
 * as well, so that one look is enough for most addresses. The lengths 24 and 16 are used where there are too many short
 * prefixes for that.
 *
 * Rejected: an LPM trie (1,460 ns with a million prefixes), and a hash for each prefix length (48 bytes of overhead an entry, and
 * two cache misses for each length in use).
 */
#ifndef MP_BLOCK_H
#define MP_BLOCK_H

#include "maps.h"
#include "packet.h"

#define BLOCK_SEARCH_STEPS 32 /* a binary search among 2^32 */
#define BLOCK_HASH 0x9e3779b97f4a7c15ull
#define BLOCK_DESTINATION 0x80000000u
#define BLOCK_PART_SHIFT 38   /* which bits of the hash choose among a slot's 32 parts */

struct block_query {
	void *image;
	const struct mp_block_header *header;
	__u64 high, low;      /* the address in host order */
	__u32 from, above;    /* the first start above the address is not before `from`, nor behind `above` */
};

static __always_inline const struct mp_block_line *block_line(void *image, __u32 first_line, __u32 number)
{
	__u32 line = first_line + number;

	return bpf_map_lookup_elem(image, &line);
}

static __always_inline __u64 block_word(void *image, __u32 first_line, __u32 index)
{
	const struct mp_block_line *line = block_line(image, first_line, index >> 3);

	return line ? line->word[index & 7] : 0;
}

/* Whether the prefix of that number starts at or below the address, and (`owner` then is not 0) contains it. */
static __always_inline int block_compare(const struct block_query *query, __u32 number, __u32 *owner)
{
	const struct mp_block_line *line = block_line(query->image, query->header->starts, number >> 2);
	__u32 length, info;
	__u64 high, low;

	if (!line)
		return 0;
	high = line->word[(number & 3) * 2];
	low = line->word[(number & 3) * 2 + 1];
	if (high > query->high || (high == query->high && low > query->low))
		return 0;
	info = block_word(query->image, query->header->infos, number >> 1) >> (number & 1) * 32;
	length = info >> 24;
	if (length > 64 ? high == query->high && (low ^ query->low) >> (128 - length) == 0 :
			  !length || (high ^ query->high) >> (64 - length) == 0)
		*owner = info & MP_BLOCK_OWNER;
	return 1;
}

/* One step of bpf_loop: halves what is left. Returns 1 to stop. */
static long block_step(__u32 index, void *state)
{
	struct block_query *query = state;
	__u32 middle = query->from + (query->above - query->from) / 2;
	const struct mp_block_line *line;
	__u64 high, low;

	if (query->from >= query->above)
		return 1;
	line = block_line(query->image, query->header->starts, middle >> 2);
	if (!line)
		return 1;
	high = line->word[(middle & 3) * 2];
	low = line->word[(middle & 3) * 2 + 1];
	if (high < query->high || (high == query->high && low <= query->low))
		query->from = middle + 1;
	else
		query->above = middle;
	return 0;
}

/* The owner of the prefix that contains the address, 0: none. It is the last prefix that starts at or below it. */
static __noinline __u32 block_search(struct block_query *query)
{
	__u32 owner = 0;

	/* Mostly there is one in a slot, and it is the one. */
	if (query->above && block_compare(query, query->above - 1, &owner))
		return owner;
	bpf_loop(BLOCK_SEARCH_STEPS, block_step, query, 0);
	if (query->from)
		block_compare(query, query->from - 1, &owner);
	return owner;
}

/* Whether the part of a slot holds anything; `word` is then the slot. */
static __always_inline int block_holds(void *image, __u32 slots, __u32 slot, __u32 part, __u64 *word)
{
	*word = block_word(image, slots, slot);
	return *word >> 32 >> (part & 31) & 1;
}

static __always_inline void block_enter(struct block_query *query, __u32 slots, __u32 slot, __u64 word)
{
	query->from = word;
	query->above = block_word(query->image, slots, slot + 1);
}

static __always_inline __u32 block_owner_v4(struct block_query *query, __be32 wire)
{
	const struct mp_block_header *header = query->header;
	__u32 address = bpf_ntohl(wire), shift = header->v4_shift & 31;
	__u64 word;

	if (!header->v4_slots ||
	    !block_holds(query->image, header->v4_slots, address >> shift, address >> ((shift - 5) & 31), &word))
		return 0;
	query->high = 0;
	query->low = 0xffffull << 32 | address;
	/* An empty slot may lie within a prefix that starts before it. */
	block_enter(query, header->v4_slots, address >> shift, word);
	return block_search(query);
}

/* By way of the first `length` bits. Returns whether the slot's part holds anything at all. */
static __always_inline int block_in_level(struct block_query *query, __u32 length, __u32 *owner)
{
	__u64 key = (query->high & ~0ull << (64 - length)) | length;
	__u64 hash = (key ^ key >> 32) * BLOCK_HASH, word;
	__u32 slot = hash >> (query->header->v6_shift & 63);

	if (!block_holds(query->image, query->header->v6_slots, slot, hash >> BLOCK_PART_SHIFT, &word))
		return 0;
	/* One that is only marked, for the sake of a longer length, has no starts. */
	block_enter(query, query->header->v6_slots, slot, word);
	if (query->from < query->above)
		*owner = block_search(query);
	return 1;
}

/* The query is the caller's: the stack has no room for two (512 bytes in all, of which kernel 6.1 counts each function in
 * steps of 32). */
static __noinline __u32 block_owner_v6(struct block_query *query, const struct mp_address *address)
{
	__u32 levels = query->header->levels, owner = 0;

	query->high = (__u64)bpf_ntohl(address->word[0]) << 32 | bpf_ntohl(address->word[1]);
	query->low = (__u64)bpf_ntohl(address->word[2]) << 32 | bpf_ntohl(address->word[3]);
	if (levels & MP_BLOCK_LEVEL_32 && block_in_level(query, 32, &owner) && !owner && levels & MP_BLOCK_LEVEL_48)
		block_in_level(query, 48, &owner);
	if (!owner && levels & MP_BLOCK_LEVEL_24)
		block_in_level(query, 24, &owner);
	if (!owner && levels & MP_BLOCK_LEVEL_16)
		block_in_level(query, 16, &owner);
	return owner;
}

static __always_inline __u32 block_owner(struct block_query *query, const struct mp_address *address)
{
	return address_is_v4(address) ? block_owner_v4(query, address->word[3]) : block_owner_v6(query, address);
}

/* What blocks a packet between two addresses by one layer: in the top bit, that it is the destination; 0: nothing does. */
static __noinline __u32 block_layer(__u32 layer, const struct mp_address *source, const struct mp_address *destination)
{
	struct block_query query = { .image = bpf_map_lookup_elem(&blocks, &layer) };
	__u32 zero = 0, owner;

	if (!query.image)
		return 0;
	query.header = bpf_map_lookup_elem(query.image, &zero);
	if (!query.header)
		return 0;
	owner = block_owner(&query, source);
	if (owner)
		return owner;
	owner = block_owner(&query, destination);
	return owner ? owner | BLOCK_DESTINATION : 0;
}

/* What blocks a packet: a source by any layer before a destination, and single blocks before lists. */
static __always_inline __u32 block_pair(const struct mp_address *source, const struct mp_address *destination,
					const struct mp_settings *current)
{
	__u32 single = 0, listed = 0;

	if (current->block_layers & 1u << MP_BLOCK_SINGLE)
		single = block_layer(MP_BLOCK_SINGLE, source, destination);
	if (single && !(single & BLOCK_DESTINATION))
		return single;
	if (current->block_layers & 1u << MP_BLOCK_LISTS)
		listed = block_layer(MP_BLOCK_LISTS, source, destination);
	return !single || (listed && !(listed & BLOCK_DESTINATION)) ? listed : single;
}

/* What blocks an address, single blocks first; 0: nothing does. */
static __always_inline __u32 block_by(const struct mp_address *address, const struct mp_settings *current)
{
	return current->block_layers ? block_pair(address, address, current) : 0;
}

/* The place of a packet's addresses among those that were found clean. Packets of one conversation find themselves there,
 * and read one line instead of the images' four or more. */
static __always_inline struct mp_clean_pair *block_place(const struct mp_flow_key *key)
{
	__u64 mix = (__u64)key->source.word[3] << 32 | key->destination.word[3];
	__u32 place;

	mix ^= (__u64)key->source.word[1] << 32 | key->destination.word[1];
	place = (mix * BLOCK_HASH) >> 40 & (MP_CLEAN_PAIRS - 1);
	return bpf_map_lookup_elem(&clean_pairs, &place);
}

static __always_inline int block_is_clean(const struct mp_clean_pair *pair, const struct mp_flow_key *key, __u32 epoch)
{
	return pair && pair->epoch == epoch && address_equal(&pair->source, &key->source) &&
	       address_equal(&pair->destination, &key->destination);
}

static __always_inline void block_remember(struct mp_clean_pair *pair, const struct mp_flow_key *key, __u32 epoch)
{
	pair->source = key->source;
	pair->destination = key->destination;
	pair->epoch = epoch;
}

/* MP_NONE, or why a packet with these addresses goes nowhere; `owner` is then what blocks it. */
static __always_inline enum mp_reason block_verdict(const struct packet *packet, const struct mp_settings *current,
						    __u32 *owner)
{
	/* Before the images: what they said before a change must not count as said after it. */
	__u32 epoch = *(const volatile __u32 *)&current->block_epoch, found;
	struct mp_clean_pair *pair;

	if (!current->block_layers)
		return MP_NONE;
	pair = block_place(&packet->key);
	if (block_is_clean(pair, &packet->key, epoch))
		return MP_NONE;
	found = block_pair(&packet->key.source, &packet->key.destination, current);
	*owner = found & MP_BLOCK_OWNER;
	if (!found && pair)
		block_remember(pair, &packet->key, epoch);
	if (!found)
		return MP_NONE;
	return found & BLOCK_DESTINATION ? MP_BLOCKED_DESTINATION : MP_BLOCKED_SOURCE;
}

#endif
