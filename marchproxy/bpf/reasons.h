/* SPDX-License-Identifier: GPL-2.0 */
/* Why a packet or connection ended as it did: the one list.
 *
 * A number is counter index, event field and enum value at once, in C and in marchproxy/model/reason.py (a test
 * compares them). Numbers are never reused: append, and leave a gap where one is retired.
 *
 *          name                 number  meaning
 */
#ifndef MP_REASONS_H
#define MP_REASONS_H

#define MP_REASONS(X) \
	X(FORWARDED,            1)  /* rewritten and sent on by a flow */ \
	X(HANDED_OFF,           2)  /* as FORWARDED, of a connection that user space admitted */ \
	X(PASSED_TO_HOST,       3)  /* left to the host's own stack */ \
	X(NO_MAPPING,           4)  /* nothing allows it */ \
	X(DENY_MAPPING,         5)  /* a mapping denies it */ \
	X(BLOCKED_SOURCE,       6)  \
	X(BLOCKED_DESTINATION,  7)  \
	X(RATE_LIMITED,         8)  \
	X(NO_BACKEND,           9)  /* a mapping allows it, but none of its destinations can serve it */ \
	X(NO_ROUTE,            10)  /* the routing table has no way to the destination */ \
	X(NO_NAT_PORT,         11)  /* no free source port towards the backend */ \
	X(FLOW_TABLE_FULL,     12)  \
	X(MALFORMED,           13)  /* headers that contradict themselves or end early */ \
	X(TTL_EXPIRED,         14)  /* hop limit used up */ \
	X(TOO_BIG,             15)  /* larger than the next hop's MTU and not to be fragmented */ \
	X(AUTH_MISSING,        16)  /* the mapping wants a credential and none was presented */ \
	X(AUTH_INVALID,        17)  \
	X(AUTH_EXPIRED,        18)  \
	X(UPSTREAM_REFUSED,    19)  \
	X(UPSTREAM_TIMEOUT,    20)  \
	X(NO_FLOW,             21)  /* TCP that neither opens nor belongs to a known flow */ \
	X(FRAGMENT,            22)  /* a later fragment whose first was not seen */ \
	X(NOT_CARRIED,         23)  /* the mapping wants what this version or tier cannot do */ \
	X(CLOSED,              24)  /* flow end: both sides closed */ \
	X(RESET,               25)  /* flow end: one side reset */ \
	X(IDLE,                26)  /* flow end: silent for too long */ \
	X(POLICY_CHANGED,      27)  /* flow end: no longer allowed */ \
	X(HANDED_UP,           28)  /* XDP only: left whole to the TC program of the same interface */ \
	X(UNSUPPORTED,         29)  /* a protocol the pipeline does not read */ \
	X(SPOOFED,             30)  /* the way back to the source is by the other side of the appliance */ \
	X(REROUTED,            31)  /* flow end: its way out moved to an interface that its source address is not of */ \
	X(NAME_UNKNOWN,        32)  /* the name asked for does not resolve */ \
	X(PRIVATE_ADDRESS,     33)  /* a name led to a private address, or to the appliance itself */ \
	X(SNI_MISMATCH,        34)  /* TLS names another host than was asked for */ \
	X(SNI_MISSING,         35)  /* no TLS, or TLS that names no host, where a mapping wants one */ \
	X(TOO_SLOW,            36)  /* the client did not finish its request in time */ \
	X(LIFETIME,            37)  /* flow end: it was open for as long as it may be */ \
	X(CUT,                 38)  /* flow end: an operator ended it */ \
	X(AUTH_REVOKED,        39)  /* the credential was taken back */ \
	X(TLS_FAILED,          40)  /* client and appliance did not agree on TLS, or the client on the certificate */

/* Counters are an array of this many entries, so a new reason needs no new map layout. */
#define MP_REASON_COUNT 64

enum mp_reason {
	MP_NONE = 0,
#define MP_REASON_ENUM(name, number) MP_##name = number,
	MP_REASONS(MP_REASON_ENUM)
#undef MP_REASON_ENUM
};

#endif
