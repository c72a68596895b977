/* Tells of each packet, with its bytes behind four of our own. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(max_entries, 1024);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} records SEC(".maps");

SEC("tc")
int tc_tell(struct __sk_buff *context)
{
	__u32 head = 0x01020304;

	return bpf_perf_event_output(context, &records, (__u64)context->len << 32 | BPF_F_CURRENT_CPU, &head,
				     sizeof(head)) ?
		       1 :
		       0;
}

char _license[] SEC("license") = "GPL";
