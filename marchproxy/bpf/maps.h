/* SPDX-License-Identifier: GPL-2.0 */
/* Every map of the data plane. All are pinned by name; sizes of `flows` and `opening` are set at load time. */
#ifndef MP_MAPS_H
#define MP_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "marchproxy.h"

/* Established flows. Nothing is ever evicted: full means that new flows are refused. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1048576);
	__type(key, struct mp_flow_key);
	__type(value, struct mp_flow);
} flows SEC(".maps");

/* Flows that are being opened or have just closed, under a budget of their own: a flood evicts only its like. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct mp_flow_key);
	__type(value, struct mp_flow);
} opening SEC(".maps");

/* By enum mp_beginning. User space writes its own in the first CPU's place. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MP_BEGINNINGS);
	__type(key, __u32);
	__type(value, __u64);
} beginnings SEC(".maps");

/* How the packets of SPLICED flows are translated, by `mp_flow.splice`. User space gives the places out. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MP_SPLICES);
	__type(key, __u32);
	__type(value, struct mp_splice);
} splices SEC(".maps");

/* Who opened a SPLICED flow, by its id. Written by user space, kept with the flows it tells of. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MP_SPLICES);
	__type(key, __u64);
	__type(value, struct mp_tunnel);
} tunnels SEC(".maps");

/* Where diverted connections begin: the listening sockets for IPv4 and IPv6. They leave the map when they are closed. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} divert_sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct mp_fragment_key);
	__type(value, struct mp_fragment);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MP_BANKS * MP_LISTENERS);
	__type(key, struct mp_listener_key);
	__type(value, struct mp_listener);
} listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MP_BANKS * MP_RULES);
	__type(key, __u32);
	__type(value, struct mp_rule);
} rules SEC(".maps");

/* Tables of pools, one after the other; a slot is an index into `backends`, and behind each table one counts turns. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MP_BANKS * MP_POOL_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} pools SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MP_BANKS * MP_BACKENDS);
	__type(key, __u32);
	__type(value, struct mp_backend);
} backends SEC(".maps");

/* Which backend has chosen a connection ID of QUIC, under a budget: what nobody has asked for longest goes first. Its flows are no
 * part of any bank, and neither is this; user space takes out what policy no longer allows. IDs that no client has named yet are
 * in `quic_offers`, which a flood of first packets fills and nothing else. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MP_QUIC_HOMES);
	__type(key, struct mp_quic_key);
	__type(value, struct mp_backend);
} quic_homes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MP_QUIC_HOMES);
	__type(key, struct mp_quic_key);
	__type(value, struct mp_backend);
} quic_offers SEC(".maps");

/* Established flows by backend, for those that user space has entered: the members of LEAST_CONNECTIONS pools. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MP_BACKENDS);
	__type(key, struct mp_backend_key);
	__type(value, __s64);
} active SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MP_BANKS * MP_PAGES);
	__type(key, struct mp_page_key);
	__type(value, struct mp_page);
} class_pages SEC(".maps");

/* By bank and hash. Memory that can be mapped begins at a page, and so its entries at lines. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MP_BANKS * MP_CLASS_LINES);
	__type(key, __u32);
	__type(value, struct mp_class_line);
} class_lines SEC(".maps");

/* Addresses to classes, where no page knows. The trie's key is 4 + 17 bytes; the C struct's tail padding must not count
 * as address. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MP_BANKS * MP_PREFIXES);
	__uint(key_size, 21);
	__type(value, __u32);
} address_classes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MP_BANKS * MP_SOURCE_BITS);
	__type(key, struct mp_bits_key);
	__type(value, __u64);
} source_bits SEC(".maps");

/* Whom which limits hold for, banked as the policy is; the trie's key is that of `sources`. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MP_BANKS * MP_LIMIT_PREFIXES);
	__uint(key_size, 21);
	__type(value, __u32);
} limit_prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MP_BANKS * MP_LIMIT_SETS);
	__type(key, __u32);
	__type(value, struct mp_limit_set);
} limit_sets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MP_BANKS * MP_LIMITS);
	__type(key, __u32);
	__type(value, struct mp_limit);
} limits SEC(".maps");

/* Changes with `limit_prefixes` and `limit_sets`; 0: there are no limits. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MP_BANKS);
	__type(key, __u32);
	__type(value, __u32);
} limit_generations SEC(".maps");

/* Buckets of limits that many addresses share, by slot, in no bank: what was let through stays so. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MP_LIMITS);
	__type(key, __u32);
	__type(value, struct mp_bucket);
} limit_buckets SEC(".maps");

/* Clients with buckets of their own, under a budget: who has been silent longest goes first, and starts afresh. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct mp_address);
	__type(value, struct mp_limited);
} limited SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MP_LIMITS);
	__type(key, __u32);
	__type(value, struct mp_limit_counter);
} limit_counters SEC(".maps");

/* What a slot is for, `limit` or `limit service`. Written by user space, kept with the counters it names. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MP_LIMITS);
	__type(key, __u32);
	__uint(value_size, 256);
} limit_names SEC(".maps");

/* Protocol and port to a class. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MP_BANKS * MP_PORT_CLASSES);
	__type(key, __u32);
	__type(value, __u32);
} port_classes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MP_BANKS * MP_RULES);
	__type(key, __u32);
	__type(value, struct mp_transit_rule);
} transit_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MP_BANKS * MP_TRANSIT_BITS);
	__type(key, struct mp_bits_key);
	__type(value, __u64);
} transit_bits SEC(".maps");

/* By bank, dimension and class. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MP_BANKS * MP_DIMENSIONS * MP_CLASSES);
	__type(key, __u32);
	__type(value, struct mp_transit_digest);
} transit_digests SEC(".maps");

/* How many words of rules are in use. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MP_BANKS);
	__type(key, __u32);
	__type(value, __u32);
} transit_extents SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mp_transit_state);
} transit_state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct mp_nat_pool);
} nat_pools SEC(".maps");

/* An image of what is blocked: as many lines as it takes. Sizes and no types, because clang leaves the types of an inner map
 * out of the BTF. */
struct block_image {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct mp_block_line));
};

/* By layer; an empty place blocks nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MP_BLOCK_LAYERS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__array(values, struct block_image);
} blocks SEC(".maps");

/* By a hash of both addresses. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MP_CLEAN_PAIRS);
	__type(key, __u32);
	__type(value, struct mp_clean_pair);
} clean_pairs SEC(".maps");

/* By a hash of the tuple. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MP_HOST_PLACES);
	__type(key, __u32);
	__type(value, struct mp_host_place);
} host_places SEC(".maps");

/* How many drops of blocked sources were reported lately. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mp_spent);
} block_reports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mp_settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mp_management);
} management SEC(".maps");

/* An array, because every frame that XDP sees looks its interface up. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MP_INTERFACES);
	__type(key, __u32);
	__type(value, struct mp_interface);
} interfaces SEC(".maps");

/* By interface number. Apart from `interfaces`, of which XDP reads an entry with every frame. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct mp_own_addresses);
} own_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MP_REASON_COUNT);
	__type(key, __u32);
	__type(value, struct mp_counter);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mp_spent);
} refusals SEC(".maps");

/* When it is full, what is new is counted by its reason alone. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct mp_denied_key);
	__type(value, struct mp_counter);
} denied SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct mp_repeat_key);
	__type(value, struct mp_repeat);
} repeats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mp_spent);
} denied_events SEC(".maps");

/* Events that found the ring full. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} events SEC(".maps");

/* What is to be captured, and how much was. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mp_capture_filter);
} capture_filter SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct mp_capture_prefix);
	__type(value, __u32);
} capture_prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mp_capture_spent);
} capture_spent SEC(".maps");

/* Buffers of whoever captures, by CPU; empty otherwise. */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(max_entries, 4096);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} captured SEC(".maps");

/* Mapping numbers in flows and events, to `cluster/mapping`. Written by user space, kept with the flows it names. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__uint(value_size, 128);
} mapping_names SEC(".maps");

/* A flow under construction: two of them do not fit the 512-byte stack beside everything else. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mp_flow);
} scratch SEC(".maps");

static __always_inline const struct mp_settings *settings_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

#endif
