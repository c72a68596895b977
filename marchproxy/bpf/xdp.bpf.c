// SPDX-License-Identifier: GPL-2.0
/* The pipeline on frames, in the driver or (generic mode) just above it. */
#define MP_XDP
#include "pipeline.h"

SEC("xdp")
int marchproxy_xdp(struct xdp_md *context)
{
	return pipeline(context);
}

char _license[] SEC("license") = "GPL";
