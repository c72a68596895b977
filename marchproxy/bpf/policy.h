/* SPDX-License-Identifier: GPL-2.0 */
/* Which rule decides a new conversation at a listener.
 *
 * The rules of a listener are a run of numbers in first-match order. A source address belongs to a class (of those that
 * the same rules match); `source_bits` holds one bit per rule and class. The first bit set within the listener's run,
 * for the source's class or for anyone, is the answer: 64 rules cost two look-ups, however many services there are.
 */
#ifndef MP_POLICY_H
#define MP_POLICY_H

#include "maps.h"
#include "packet.h"

struct policy_search {
	struct mp_bits_key class;
	struct mp_bits_key anyone;
	__u32 first;          /* rule numbers within the bank */
	__u32 last;
	__u32 found;          /* rule number, or POLICY_NOTHING */
};

#define POLICY_NOTHING 0xffffffffu
#define POLICY_HASH 0x9e3779b97f4a7c15ull

static __always_inline const struct mp_listener *policy_listener(const struct mp_flow_key *asked, int wildcard,
								 __u32 bank)
{
	struct mp_listener_key key = {
		.port = asked->destination_port,
		.protocol = asked->protocol,
		.bank = bank,
	};

	if (!wildcard)
		key.address = asked->destination;
	else if (address_is_v4(&asked->destination))
		key.address.word[2] = bpf_htonl(0xffff);
	return bpf_map_lookup_elem(&listeners, &key);
}

static __always_inline const struct mp_class_line *policy_line(const struct mp_address *address, __u32 bank)
{
	__u64 high = (__u64)bpf_ntohl(address->word[0]) << 32 | bpf_ntohl(address->word[1]);
	__u64 low = (__u64)bpf_ntohl(address->word[2]) << 32 | (bpf_ntohl(address->word[3]) & ~0xffu);
	__u32 index = ((high * POLICY_HASH) ^ low) * POLICY_HASH >> (64 - MP_CLASS_LINES_BITS);

	index += bank * MP_CLASS_LINES;
	return bpf_map_lookup_elem(&class_lines, &index);
}

/* Have the processor fetch the line of an address that is looked at soon. */
static __always_inline void policy_fetch(const struct mp_address *address, __u32 bank)
{
	const struct mp_class_line *line = policy_line(address, bank);

	if (line)
		(void)*(const volatile __u32 *)&line->page.word[3];
}

static __always_inline int policy_line_is_of(const struct mp_class_line *line, const struct mp_address *address)
{
	return line->page.word[2] == address->word[2] &&
	       !((line->page.word[3] ^ address->word[3]) & bpf_htonl(0xffffff00)) &&
	       line->page.word[0] == address->word[0] && line->page.word[1] == address->word[1];
}

/* What a page that has no line says about an address. */
static __always_inline __u32 policy_page_class(const struct mp_address *address, __u32 bank)
{
	__u8 last = bpf_ntohl(address->word[3]);
	const struct mp_page *page;
	struct mp_page_key key;
	__u32 class;

	__builtin_memcpy(&key, address, sizeof(key));
	key.bank = bank;
	page = bpf_map_lookup_elem(&class_pages, &key);
	if (!page)
		return MP_CLASS_ELSEWHERE;
	class = page->class[0];
	for (int run = 1; run < MP_PAGE_RUNS && page->first[run] <= last; run++)
		class = page->class[run];
	return class;
}

/* What a page says about an address. */
static __always_inline __u32 policy_narrow_class(const struct mp_address *address, __u32 bank)
{
	const struct mp_class_line *line = policy_line(address, bank);
	__u8 last = bpf_ntohl(address->word[3]), flags;
	__u32 class;

	if (!line)
		return MP_CLASS_ELSEWHERE;
	flags = bpf_ntohl(line->page.word[3]);
	if (!(flags & MP_LINE_TAKEN) || !policy_line_is_of(line, address))
		return flags & MP_LINE_MORE ? policy_page_class(address, bank) : MP_CLASS_ELSEWHERE;
	class = line->class[0];
	for (int run = 1; run < MP_LINE_RUNS && line->first[run] <= last; run++)
		class = line->class[run];
	return class;
}

static __noinline __u32 policy_class(const struct mp_address *address, __u32 bank)
{
	struct mp_address_key key = {.prefix_length = 8 + 128, .bank = bank};
	__u32 narrow = policy_narrow_class(address, bank);
	const __u32 *class;

	if (narrow != MP_CLASS_ELSEWHERE)
		return narrow;
	__builtin_memcpy(key.address, address, sizeof(key.address));
	class = bpf_map_lookup_elem(&address_classes, &key);
	return class ? *class : MP_CLASS_STRANGER;
}

/* Not __builtin_ctzll: clang 14 does not survive it for this target. */
static __always_inline __u32 policy_lowest_bit(__u64 word)
{
	__u32 bit = 0;

	if (!(word & 0xffffffff)) {
		bit += 32;
		word >>= 32;
	}
	if (!(word & 0xffff)) {
		bit += 16;
		word >>= 16;
	}
	if (!(word & 0xff)) {
		bit += 8;
		word >>= 8;
	}
	if (!(word & 0xf)) {
		bit += 4;
		word >>= 4;
	}
	if (!(word & 0x3)) {
		bit += 2;
		word >>= 2;
	}
	return bit + !(word & 1);
}

/* One step of bpf_loop: the search's next 64 rules. Returns 1 to stop. */
static long policy_search_word(__u32 index, void *state)
{
	struct policy_search *search = state;
	__u64 word = 0, *bits;
	__u32 base;

	search->class.word = search->anyone.word = search->first / 64 + index;
	base = search->class.word * 64;
	bits = bpf_map_lookup_elem(&source_bits, &search->class);
	if (bits)
		word |= *bits;
	bits = bpf_map_lookup_elem(&source_bits, &search->anyone);
	if (bits)
		word |= *bits;
	if (base < search->first)
		word &= ~0ull << (search->first - base);
	if (search->last - base < 63)
		word &= ~0ull >> (63 - (search->last - base));
	if (!word)
		return 0;
	search->found = base + policy_lowest_bit(word);
	return 1;
}

/* The first rule of the listener that matches the source, or NULL. */
static __noinline const struct mp_rule *policy_match(const struct mp_listener *listener,
							  const struct mp_address *source, __u32 bank)
{
	__u32 tag = bank << MP_CLASS_BANK_SHIFT;
	struct policy_search search = {
		.class = {.class = policy_class(source, bank) | tag},
		.anyone = {.class = MP_CLASS_ANYONE | tag},
		.first = listener->first,
		.last = listener->first + listener->count - 1,
		.found = POLICY_NOTHING,
	};
	__u32 number;

	if (!listener->count)
		return NULL;
	bpf_loop(search.last / 64 - search.first / 64 + 1, policy_search_word, &search, 0);
	if (search.found >= MP_RULES)
		return NULL;
	number = bank * MP_RULES + search.found;
	return bpf_map_lookup_elem(&rules, &number);
}

#endif
