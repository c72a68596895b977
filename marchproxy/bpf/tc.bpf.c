// SPDX-License-Identifier: GPL-2.0
/* The pipeline on socket buffers, attached to the ingress of an interface. */
#include "pipeline.h"

SEC("tc")
int marchproxy_tc(struct __sk_buff *context)
{
	return pipeline(context);
}

char _license[] SEC("license") = "GPL";
