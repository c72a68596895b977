/* One map of each kind that the binding treats differently, and programs that fill and consult them. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define TEST_ETHERTYPE 0x88b5 /* IEEE 802 local experimental: nothing else on a link uses it */

const volatile __u32 verdict = 2; /* XDP_PASS */
const volatile __u8 label[4] = "abc";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, __u64);
	__uint(max_entries, 16);
} hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, __u64);
	__type(value, __u64);
	__uint(max_entries, 128);
} lru SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, 8);
	__uint(value_size, 8);
	__uint(max_entries, 16);
} trie SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 16);
} array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u32); /* smaller than the 8 bytes that separate the values of two CPUs */
	__uint(max_entries, 4);
} percpu_array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 16);
} percpu_hash_with_a_long_name SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH); /* has no batch calls */
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 16);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

static __always_inline int count(void *data, void *data_end, __u32 slot)
{
	struct ethhdr *eth = data;
	__u64 *packets;

	if ((void *)(eth + 1) > data_end || eth->h_proto != bpf_htons(TEST_ETHERTYPE))
		return 0;
	packets = bpf_map_lookup_elem(&array, &slot);
	if (packets)
		__sync_fetch_and_add(packets, 1);
	return 1;
}

/* Counts in slot 0, marks the frame's first byte, and answers the constant `verdict`. */
SEC("xdp")
int xdp_first(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;

	if (!count(data, data_end, 0))
		return XDP_PASS;
	*(__u8 *)data = label[0];
	return verdict;
}

/* Counts in slot 1, and answers with the interface: how a swapped program is told from the first. */
SEC("xdp")
int xdp_second(struct xdp_md *ctx)
{
	if (!count((void *)(long)ctx->data, (void *)(long)ctx->data_end, 1))
		return XDP_PASS;
	return ctx->ingress_ifindex;
}

/* Counts in slot 0, and makes the frame 4 bytes longer and the mark one higher. */
SEC("tc")
int tc_first(struct __sk_buff *skb)
{
	if (!count((void *)(long)skb->data, (void *)(long)skb->data_end, 0))
		return TC_ACT_OK;
	skb->mark += 1;
	bpf_skb_change_tail(skb, skb->len + 4, 0);
	return TC_ACT_OK;
}

/* Counts in slot 1, and answers with the interface. */
SEC("tc")
int tc_second(struct __sk_buff *skb)
{
	if (!count((void *)(long)skb->data, (void *)(long)skb->data_end, 1))
		return TC_ACT_OK;
	return skb->ifindex * 1000 + skb->ingress_ifindex;
}

static __always_inline void report(__u32 number)
{
	bpf_ringbuf_output(&events, &number, sizeof(number), 0);
}

/* Sends three numbered events for each packet. */
SEC("tc")
int tc_report(struct __sk_buff *skb)
{
	report(0);
	report(1);
	report(2);
	return TC_ACT_OK;
}

SEC("socket")
int neither_xdp_nor_tc(struct __sk_buff *skb)
{
	return 0;
}

char _license[] SEC("license") = "GPL";
