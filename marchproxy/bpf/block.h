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
 * is the only one that can contain it. An IPv6 prefix is in the slot of the longest of the four lengths that is not
 * longer than itself, and one shorter than 16 bits in several slots.
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
#define BLOCK_PART_SHIFT 38   /* which bits of the hash choose among a slot's 32 parts */

struct block_query {
	void *image;
	const struct mp_block_header *header;
	__u64 high, low;      /* the address in host order */
	__u32 from, above;    /* the first start above the address is not before `from`, nor behind `above` */
};

static __always_inline __u64 block_word(void *image, __u32 first_line, __u32 index)
{
	__u32 number = first_line + (index >> 3);
	const struct mp_block_line *line = bpf_map_lookup_elem(image, &number);

	return line ? line->word[index & 7] : 0;
}

static __always_inline int block_contains(const struct block_query *query, __u64 high, __u64 low, __u32 length)
{
	if (length > 64)
		return high == query->high && (low ^ query->low) >> (128 - length) == 0;
	return !length || (high ^ query->high) >> (64 - length) == 0;
}

/* One step of bpf_loop: halves what is left. Returns 1 to stop. */
static long block_step(__u32 index, void *state)
{
	struct block_query *query = state;
	__u32 middle = query->from + (query->above - query->from) / 2;
	__u64 high, low;

	if (query->from >= query->above)
		return 1;
	high = block_word(query->image, query->header->starts, 2 * middle);
	low = block_word(query->image, query->header->starts, 2 * middle + 1);
	if (high < query->high || (high == query->high && low <= query->low))
		query->from = middle + 1;
	else
		query->above = middle;
	return 0;
}

/* The owner of the prefix that contains the address, 0: none. It is the last prefix that starts at or below it. */
static __noinline __u32 block_search(struct block_query *query)
{
	__u64 high, low, info;
	__u32 last;

	bpf_loop(BLOCK_SEARCH_STEPS, block_step, query, 0);
	if (!query->from)
		return 0;
	last = query->from - 1;
	high = block_word(query->image, query->header->starts, 2 * last);
	low = block_word(query->image, query->header->starts, 2 * last + 1);
	info = block_word(query->image, query->header->infos, last / 2) >> (last & 1) * 32;
	if (!block_contains(query, high, low, info >> 24 & 0xff))
		return 0;
	return info & MP_BLOCK_OWNER;
}

/* The owner found by way of one slot. */
static __always_inline __u32 block_in_slot(struct block_query *query, __u32 slots, __u32 slot, __u32 part)
{
	__u64 word = block_word(query->image, slots, slot);

	if (!(word >> 32 >> (part & 31) & 1))
		return 0;
	query->from = word;
	query->above = block_word(query->image, slots, slot + 1);
	return block_search(query);
}

static __always_inline __u32 block_in_level(struct block_query *query, __u32 length)
{
	__u64 key = (query->high & ~0ull << (64 - length)) | length;
	__u64 hash = (key ^ key >> 32) * BLOCK_HASH;

	return block_in_slot(query, query->header->v6_slots, hash >> (query->header->v6_shift & 63),
			     hash >> BLOCK_PART_SHIFT);
}

/* The owner of the prefix in `layer` that contains the address; 0: none. */
static __noinline __u32 block_owner(__u32 layer, const struct mp_address *address)
{
	struct block_query query = {.image = bpf_map_lookup_elem(&blocks, &layer)};
	__u32 zero = 0, owner = 0, shift;

	if (!query.image)
		return 0;
	query.header = bpf_map_lookup_elem(query.image, &zero);
	if (!query.header)
		return 0;
	query.high = (__u64)bpf_ntohl(address->word[0]) << 32 | bpf_ntohl(address->word[1]);
	query.low = (__u64)bpf_ntohl(address->word[2]) << 32 | bpf_ntohl(address->word[3]);
	if (address_is_v4(address)) {
		shift = query.header->v4_shift & 31;
		return query.header->v4_slots ? block_in_slot(&query, query.header->v4_slots, (__u32)query.low >> shift,
							      (__u32)query.low >> ((shift - 5) & 31)) : 0;
	}
	if (query.header->levels & MP_BLOCK_LEVEL_48)
		owner = block_in_level(&query, 48);
	if (!owner && query.header->levels & MP_BLOCK_LEVEL_32)
		owner = block_in_level(&query, 32);
	if (!owner && query.header->levels & MP_BLOCK_LEVEL_24)
		owner = block_in_level(&query, 24);
	if (!owner && query.header->levels & MP_BLOCK_LEVEL_16)
		owner = block_in_level(&query, 16);
	return owner;
}

/* The owner of what blocks an address, single blocks first; 0: nothing does. */
static __always_inline __u32 block_by(const struct mp_address *address, const struct mp_settings *current)
{
	__u32 owner = 0;

	if (current->block_layers & 1u << MP_BLOCK_SINGLE)
		owner = block_owner(MP_BLOCK_SINGLE, address);
	if (!owner && current->block_layers & 1u << MP_BLOCK_LISTS)
		owner = block_owner(MP_BLOCK_LISTS, address);
	return owner;
}

/* MP_NONE, or why a packet with these addresses goes nowhere; `owner` is then what blocks it. */
static __always_inline enum mp_reason block_verdict(const struct packet *packet, const struct mp_settings *current,
						    __u32 *owner)
{
	if (!current->block_layers)
		return MP_NONE;
	*owner = block_by(&packet->key.source, current);
	if (*owner)
		return MP_BLOCKED_SOURCE;
	*owner = block_by(&packet->key.destination, current);
	return *owner ? MP_BLOCKED_DESTINATION : MP_NONE;
}

#endif
