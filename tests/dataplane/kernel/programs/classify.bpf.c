/* SPDX-License-Identifier: GPL-2.0 */
/* Asks transit.h many questions in one run: thousands of packets through the whole pipeline would take minutes. */
/* Of the headers only one function is called. */
#pragma clang diagnostic ignored "-Wunused-function"

#include "../../../../marchproxy/bpf/packet.h"
#include "../../../../marchproxy/bpf/transit.h"

#define QUESTIONS 16384

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, QUESTIONS);
	__type(key, __u32);
	__type(value, struct mp_flow_key);
} questions SEC(".maps");

/* Indexes of rules in `transit_rules`. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, QUESTIONS);
	__type(key, __u32);
	__type(value, __u32);
} answers SEC(".maps");

static long ask(__u32 index, void *state)
{
	struct mp_flow_key *question = bpf_map_lookup_elem(&questions, &index);
	__u32 *answer = bpf_map_lookup_elem(&answers, &index);
	const struct mp_settings *current = settings_get();

	if (!question || !answer || !current)
		return 1;
	*answer = transit_find(question, current->bank);
	return 0;
}

SEC("tc")
int classify(struct __sk_buff *context)
{
	return bpf_loop(QUESTIONS, ask, NULL, 0);
}

char _license[] SEC("license") = "GPL";
