/* Reads a map's value without asking whether it is there; the verifier must refuse that. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} numbers SEC(".maps");

SEC("xdp")
int careless(struct xdp_md *ctx)
{
	__u32 key = 0;
	__u64 *number = bpf_map_lookup_elem(&numbers, &key);

	return *number;
}

char _license[] SEC("license") = "GPL";
