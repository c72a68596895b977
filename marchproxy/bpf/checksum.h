/* SPDX-License-Identifier: GPL-2.0 */
/* Incremental one's-complement checksums (RFC 1624). Sums are 64 bits wide so that folding can wait until the end. */
#ifndef MP_CHECKSUM_H
#define MP_CHECKSUM_H

#include <linux/types.h>

static __always_inline __u64 checksum_replace(__u64 sum, __u32 old, __u32 new)
{
	return sum + (__u32)~old + new;
}

/* To the 32 bits that kernel helpers call __wsum. */
static __always_inline __u32 checksum_fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (__u32)((sum & 0xffffffff) + (sum >> 32));
}

/* Whether what changed by this sum still has the same checksum: zero has two forms in one's complement. */
static __always_inline int checksum_is_nothing(__u32 sum)
{
	return !sum || sum == 0xffffffff;
}

static __always_inline __u16 checksum_fold16(__u64 sum)
{
	__u32 folded = checksum_fold32(sum);

	folded = (folded & 0xffff) + (folded >> 16);
	folded = (folded & 0xffff) + (folded >> 16);
	return (__u16)folded;
}

/* The checksum field after its covered bytes changed by `sum` (from checksum_replace). */
static __always_inline __u16 checksum_apply(__u16 check, __u64 sum)
{
	return (__u16)~checksum_fold16(sum + (__u16)~check);
}

#endif
