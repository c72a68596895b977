/* SPDX-License-Identifier: GPL-2.0 */
/* Structs shared with user space, mirrored in marchproxy/dataplane/kernel/layouts.py.
 *
 * A test compares every size and offset with the BTF of the compiled objects. Padding is written out, because a hash
 * key with stray bytes makes look-ups random. Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d; ports are in
 * network order where they are `__be16`; everything else is in host order. Times are CLOCK_MONOTONIC nanoseconds.
 *
 * Changing a struct of a pinned map means a new ABI number in marchproxy/bpf/__init__.py.
 */
#ifndef MP_MARCHPROXY_H
#define MP_MARCHPROXY_H

#include <linux/types.h>

#include "reasons.h"

struct mp_address {
	__be32 word[4];
};

/* ---- flows ---- */

/* The tuple of a packet as it arrives. */
struct mp_flow_key {
	struct mp_address source;
	struct mp_address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 pad[3];
};

enum mp_flow_state {
	MP_STATE_OPENING = 1,     /* the client has spoken */
	MP_STATE_ANSWERED = 2,    /* the backend has answered */
	MP_STATE_ESTABLISHED = 3, /* the client has confirmed: in the flow table proper */
	MP_STATE_CLOSED = 4,      /* ended; kept a while for stragglers */
};

enum mp_flow_flags {
	MP_FLOW_REPLY = 1,        /* backend to client */
	MP_FLOW_FIN = 2,          /* this side has sent FIN */
	MP_FLOW_PEER_FIN = 4,     /* the other side has; `peer_fin_ack` is valid */
	MP_FLOW_FIN_ACKED = 8,    /* this side has acknowledged the other's FIN */
	MP_FLOW_XDP = 16,         /* the way out can take frames from XDP */
	MP_FLOW_AUDIT = 32,       /* let through although policy refuses it */
	MP_FLOW_SPLICED = 64,     /* two connections joined: `splice` says how, see splice.h */
	MP_FLOW_QUIC = 128,       /* QUIC, unread: connection IDs that the backend chooses are learnt, see quic.h */
};

/* One direction of a conversation. Both directions exist or none; each names the other by its rewritten tuple reversed.
 *
 * What packets of an established flow need is the first 96 bytes, which the kernel's hash tables put behind the key into two lines of
 * memory: with many flows each line is a wait of 80 ns or more. The order is for that. */
struct mp_flow {
	struct mp_address source; /* rewritten */
	struct mp_address destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 ifindex;            /* way out */
	__u64 last_seen;
	__u64 packets;
	__u64 bytes;              /* IP total length */
	__u64 route_checked;      /* 0: never */
	__u32 route_epoch;
	__u32 mtu;                /* of the way out; 0: unknown */
	__u8 next_hop[6];
	__u8 own_mac[6];
	__u8 state;
	__u8 flags;
	__u8 tier;                /* that carried the last packet */
	__u8 pad;
	/* Of beginning, end and refusals. */
	__u64 id;                 /* the same in both directions */
	__u64 started;
	__u32 mapping;
	__u32 revision;           /* of the policy that opened it */
	__u32 peer_fin_ack;       /* the acknowledgement number that covers the other side's FIN; OPENING: its SYN */
	__u32 splice;             /* SPLICED: index into `splices` */
};

/* What `beginnings` counts: of conversations that are not TCP, whose beginning is told while they are in `opening`. What that pushes
 * out has no end: user space finds it as what is missing. */
enum mp_beginning {
	MP_BEGINNING_TOLD = 0,
	MP_BEGINNING_ESTABLISHED = 1, /* moved on to `flows`, where every end is told */
	MP_BEGINNING_ENDED = 2,       /* user space's: ended in `opening`, and that told */
	MP_BEGINNINGS = 3,
};

#define MP_SPLICES 131072

enum mp_splice_flags {
	MP_SPLICE_DRAINING = 1,   /* the local sockets are still there, and hear of acknowledgements */
	MP_SPLICE_HELD = 2,       /* set by programs: somebody was told of less than was acknowledged */
};

/* What tells two joined connections apart beside their tuples. By side: 0 is the client, 1 the backend. */
struct mp_splice {
	__u64 id;                 /* of the flow; 0: free */
	__u32 sequence[2];        /* added to the sequence numbers that this side sends */
	__u32 timestamp[2];       /* added to the TSvals that this side sends */
	__u32 least[2];           /* DRAINING: acknowledgements that this side hears are at least this… */
	__u32 most[2];            /* …and at most this */
	__u8 announced[2];        /* the shift that this side gives its own windows */
	__u8 expected[2];         /* the shift that the other side applies to them */
	__u32 flags;              /* MP_SPLICE_… */
};

/* Who opened a flow that is SPLICED, for a daemon that was not there. Texts are UTF-8, and end with NUL where they do not fill
 * their field. */
struct mp_tunnel {
	struct mp_flow_key key;   /* of the client's direction */
	__u64 expires;            /* the credential: seconds since the epoch, 0: never */
	char service[128];        /* whose credential it is, `cluster/service` */
	char credential[64];      /* which one of its credentials */
	char name[256];           /* host that was asked for */
	__u8 pad[16];
};

/* What a local TCP socket says about its connection: asked with `key` filled in, answered with the rest. See handoff.bpf.c. */
struct mp_socket {
	struct mp_flow_key key;   /* as its peer's packets arrive */
	__u32 found;              /* 0: there is no such socket, and nothing else is filled in */
	__u32 state;              /* enum of <linux/bpf.h>: BPF_TCP_… */
	__u32 written;            /* sequence number behind the last byte that user space wrote, and behind the FIN */
	__u32 sent;
	__u32 acknowledged;
	__u32 received;           /* next sequence number expected from the peer */
	__u32 read;               /* next one that user space will read */
	__u32 window;             /* that the peer announces: bytes */
	__u32 own_window;         /* that the peer was told */
	__u32 segment;            /* largest that can be sent now, TCP options included: bytes */
	__u32 timestamp;          /* newest TSval of the peer */
	__u32 ifindex;            /* of the interface that the peer is at; 0: not known */
	__u32 blockers;           /* MP_SOCKET_… */
};

enum mp_socket_blockers {
	MP_SOCKET_REORDERED = 1,  /* data has arrived behind a gap */
	MP_SOCKET_URGENT = 2,     /* urgent data was not read */
	MP_SOCKET_SIGNED = 4,     /* TCP-MD5 or TCP-AO */
	MP_SOCKET_LAYERED = 8,    /* an upper layer protocol, such as kernel TLS */
};

/* What user space adds to one direction of a flow, see handoff.bpf.c. */
struct mp_amendment {
	struct mp_flow_key key;
	__u64 id;                 /* of the flow */
	__u64 packets;
	__u64 bytes;
	__u32 peer_fin_ack;       /* with MP_FLOW_PEER_FIN */
	__u8 flags;               /* MP_FLOW_… to set */
	__u8 pad[3];
};

struct mp_fragment_key {
	struct mp_address source;
	struct mp_address destination;
	__u32 id;
	__u8 protocol;
	__u8 pad[3];
};

struct mp_fragment {
	__be16 source_port;
	__be16 destination_port;
};

/* ---- policy: every table exists twice, in bank 0 and bank 1; `mp_settings.bank` says which one holds ---- */

#define MP_BANKS 2
#define MP_LOOKUP_SOCKETS 4096 /* that receive for several listeners */
#define MP_LISTENERS 65536     /* per bank, as all below */
#define MP_RULES 65536
#define MP_POOL_SLOTS 1048576
#define MP_BACKENDS 65536
#define MP_PREFIXES 262144
#define MP_SOURCE_BITS 1048576

struct mp_listener_key {
	struct mp_address address; /* all zero, or ::ffff:0.0.0.0: any local address of the family */
	__be16 port;
	__u8 protocol;
	__u8 bank;
};

#define MP_RULE_AUDIT 1           /* what it refuses is reported, and let through */
#define MP_RULE_DIVERT 2          /* of transit: what it refuses is for user space to look at */
#define MP_RULE_QUIC 4            /* of UDP: what it lets through is QUIC, and kept to its backend by connection ID */

enum mp_balance {
	MP_BALANCE_MAGLEV = 0,
	MP_BALANCE_SOURCE = 1,
	MP_BALANCE_ROUND_ROBIN = 2,
	MP_BALANCE_LEAST_CONNECTIONS = 3,
};

/* A run of rules in first-match order. */
struct mp_listener {
	__u32 first;
	__u32 count;
};

struct mp_rule {
	__u32 mapping;
	__u32 pool_first;         /* index into the bank's pool slots */
	__u32 pool_size;          /* 0: no backend; the slot after the last counts turns */
	__u16 reason;             /* MP_FORWARDED, or why it refuses */
	__u8 flags;               /* MP_RULE_… */
	__u8 balance;             /* enum mp_balance */
};

struct mp_backend {
	struct mp_address address;
	struct mp_address source; /* the appliance's own address towards it */
	__be16 port;
	__u16 weight;             /* share of new flows, 1 or more */
	__u8 pad[4];
};

#define MP_QUIC_HOMES 65536
#define MP_QUIC_ID 8              /* bytes of a connection ID that are looked at */
#define MP_QUIC_SHORT_ID 4        /* the same of those that have fewer */

/* The beginning of a connection ID that a backend of the mapping has chosen. */
struct mp_quic_key {
	__u32 mapping;
	__u8 length;              /* MP_QUIC_ID or MP_QUIC_SHORT_ID */
	__u8 pad[3];
	__u8 id[MP_QUIC_ID];
};

/* A backend whose established flows are counted; not in any bank, because flows outlive policies. */
struct mp_backend_key {
	struct mp_address address;
	__be16 port;
	__u8 pad[2];
};

/* Longest-prefix match from an address to its class: addresses that the same rules match, as source and as destination. */
struct mp_address_key {
	__u32 prefix_length;      /* 8 bits of bank, then the address */
	__u8 bank;
	__u8 address[16];
	__u8 pad[3];
};

/* A *page* is the 256 addresses that share their first 120 bits. Most longer prefixes than that are in pages: a hash
 * of one look, where the trie would take as many as it is deep, each at memory that no cache holds. */
struct mp_page_key {
	__u8 address[15];
	__u8 bank;
};

#define MP_PAGES 131072         /* per bank; what does not fit is left to the trie */
#define MP_PAGE_RUNS 12
#define MP_CLASS_ELSEWHERE 0xffffffffu /* the trie knows */

/* The classes in a page, in runs of addresses: each goes from its `first` to the next one's. Unused ones repeat the last. */
struct mp_page {
	__u32 class[MP_PAGE_RUNS];
	__u8 first[MP_PAGE_RUNS];
};

/* A page in one line of memory, found by a hash of its address: a packet waits once where `class_pages` has it wait three times,
 * and for the lines of both its addresses at once. Of pages with the same line one has it. */
#define MP_CLASS_LINES_BITS 16
#define MP_CLASS_LINES (1 << MP_CLASS_LINES_BITS) /* per bank */
#define MP_LINE_RUNS 9
#define MP_LINE_TAKEN 1         /* by the page of this address */
#define MP_LINE_MORE 2          /* other pages of this line are in `class_pages` */

struct mp_class_line {
	struct mp_address page;  /* its last byte is flags */
	__u32 class[MP_LINE_RUNS];
	__u8 first[MP_LINE_RUNS];
	__u8 pad[3];
};

/* Which rules a class of sources matches: 64 rules a word. Words that are zero are absent. */
struct mp_bits_key {
	__u32 class;              /* MP_CLASS_…, bank in the top bit */
	__u32 word;
};

#define MP_CLASS_STRANGER 0u        /* in no service; of ports: in no rule's list */
#define MP_CLASS_ANYONE 1u          /* rules that match every class */
#define MP_CLASS_DIMENSION_SHIFT 29 /* of transit rules */
#define MP_CLASS_BANK_SHIFT 31

enum mp_dimension {
	MP_DIMENSION_SOURCE = 0,
	MP_DIMENSION_DESTINATION = 1,
	MP_DIMENSION_PORT = 2,
	MP_DIMENSIONS = 3,
};

/* Classes of protocol and port: TCP, UDP, and echo, which has no port. */
#define MP_PORT_ECHO 131072
#define MP_PORT_CLASSES 131073

#define MP_TRANSIT_BITS 1048576
#define MP_CLASSES 131072           /* in each dimension */

struct mp_transit_rule {
	__u32 mapping;
	__u32 rank;               /* lower decides */
	__u16 reason;             /* MP_FORWARDED, or why it refuses */
	__u8 flags;               /* MP_RULE_… */
	__u8 pad;
};

/* A search for a rule, between its steps. */
struct mp_transit_state {
	__u64 residues;           /* of words that may be there, still to be looked at */
	__u64 rules;              /* of the word, still to be looked at */
	__u32 classes[MP_DIMENSIONS]; /* the packet's, as in `mp_bits_key` */
	__u32 word;
	__u32 end;                /* one beyond the last word in use */
	__u32 bank;
	__u32 found;              /* index of a rule */
	__u32 rank;               /* of `found` */
};

/* What is needed first of a class in one dimension; classes mostly have one word of rules. */
struct mp_transit_digest {
	__u64 residues;           /* bit n: some word whose number is n modulo 64 is there */
	__u64 rules;              /* those of `word` */
	__u32 word;
	__u32 more;               /* there are others, in `transit_bits` */
};

struct mp_settings {
	__u32 bank;
	__u32 revision;
	__u32 route_epoch;        /* raised when routes or neighbours change: cached ways out are looked up again */
	__u16 nat_first;          /* source ports towards backends, host order */
	__u16 nat_count;
	__u32 refusals_per_second; /* answers to packets that are not carried, for each CPU */
	__u32 wanted_events;      /* bit per enum mp_event_kind: what somebody listens to; and MP_CAPTURING */
	__u32 limiting;           /* 0: there is no rate limit */
	__u32 denied_events_per_second; /* DENIED and AUDITED, for each CPU: what a scan may cost user space */
	__u32 repeat_ms;          /* for so long what a client tries again is told as one */
	__u32 block_layers;       /* bit per enum mp_block_layer: those that hold anything */
	__u32 silent;             /* 1: whoever is denied hears nothing */
	__u32 block_epoch;        /* raised when blocks have changed: what was found clean is looked up again */
	__u32 diverting;          /* 1: some rule is MP_RULE_DIVERT, or was and has left connections */
};

/* ---- blocks: see block.h ---- */

#define MP_BLOCK_LAYERS 2

enum mp_block_layer {
	MP_BLOCK_SINGLE = 0,
	MP_BLOCK_LISTS = 1,
};

#define MP_BLOCK_OWNER 0xffffffu /* numbers as those of mappings */
#define MP_BLOCK_LEVEL_48 1u
#define MP_BLOCK_LEVEL_32 2u
#define MP_BLOCK_LEVEL_24 4u
#define MP_BLOCK_LEVEL_16 8u

struct mp_block_line {
	__u64 word[8];
};

/* Places are numbers of lines. */
struct mp_block_header {
	__u32 v4_slots;           /* 0: no IPv4 prefix */
	__u32 v4_shift;           /* an address shifted right by this is the number of its slot; at least 5 */
	__u32 v6_slots;
	__u32 v6_shift;           /* the same of a 64-bit hash */
	__u32 levels;             /* MP_BLOCK_LEVEL_…: lengths under which IPv6 prefixes are found */
	__u32 starts;
	__u32 infos;
	__u32 pad[9];
};

#define MP_CLEAN_PAIRS 512     /* a power of two; so few that they stay in a cache next to the processor */

/* Addresses of a packet that nothing blocked, in that epoch. */
struct mp_clean_pair {
	struct mp_address source;
	struct mp_address destination;
	__u32 epoch;
	__u32 pad;
};

#define MP_HOST_PLACES 4096    /* a power of two */

/* A TCP connection of this host, see host.h. An empty one has addresses that no packet has. */
struct mp_host_place {
	struct mp_flow_key key;   /* of packets that come for it */
	__u64 found;              /* when */
	__u32 route_epoch;
	__u32 pad;
};

/* One bit per TCP port that always reaches the host. */
struct mp_management {
	__u64 tcp[1024];
};

/* On packets that go to a local socket whatever their destination, see divert.h. */
#define MP_DIVERT_MARK 0x4d504456u

#define MP_INTERFACES 16384    /* by interface number; XDP hands up all of an interface beyond */

struct mp_interface {
	__u8 address[6];          /* link address: XDP is shown frames for others too, and must leave them alone */
	__u8 native_xdp;          /* takes frames that XDP redirects to it */
	__u8 role;                /* enum mp_role */
};

enum mp_role {
	MP_ROLE_NONE = 0,         /* not attached */
	MP_ROLE_INSIDE = 1,
	MP_ROLE_OUTSIDE = 2,
};

#define MP_NAT_ADDRESSES 8

/* The source addresses of what leaves by an interface that masquerades; one client always gets the same (RFC 4787 REQ-2).
 * Without an entry it keeps its own. */
struct mp_nat_pool {
	struct mp_address v4[MP_NAT_ADDRESSES];
	struct mp_address v6[MP_NAT_ADDRESSES];
	__u32 v4_count;
	__u32 v6_count;
};

/* ---- rate limits: see limit.h ---- */

#define MP_LIMITS 1024         /* per bank, as the next two */
#define MP_LIMIT_SETS 4096
#define MP_LIMIT_PREFIXES 262144
#define MP_LIMIT_SHARED 12     /* that can hold for one address beside its own */
#define MP_LIMIT_NONE 0xffffu
#define MP_LIMIT_SHIFT 14

enum mp_rate {
	MP_RATE_PACKETS = 0,
	MP_RATE_BYTES = 1,
	MP_RATE_FLOWS = 2,
};

#define MP_RATES 3

/* By enum mp_rate. */
struct mp_limit {
	__u64 step[MP_RATES];      /* ns that one costs, shifted left by MP_LIMIT_SHIFT; 0: no such rate */
	__u64 tolerance[MP_RATES]; /* ns that may be paid ahead of now and still let one more pass */
};

struct mp_bucket {
	__u64 until[MP_RATES];    /* what passed is paid for until then */
};

/* The limits that hold for an address, by their slots. */
struct mp_limit_set {
	__u16 own[MP_RATES];      /* those of the address's own bucket, by rate; MP_LIMIT_NONE: no such limit */
	__u16 count;
	__u16 shared[MP_LIMIT_SHARED];
};

/* A client as the limits know it. */
struct mp_limited {
	__u64 set;                /* generation in the upper 32 bits, number of its set in the lower; set 0: none */
	struct mp_bucket bucket;
};

struct mp_limit_counter {
	__u64 passed_packets;
	__u64 passed_bytes;
	__u64 dropped_packets;
	__u64 dropped_bytes;
};

/* What the ICMP errors of an interface come from; all zero: none. */
struct mp_own_addresses {
	struct mp_address v4;
	struct mp_address v6;
};

/* ---- facts ---- */

struct mp_counter {
	__u64 packets;
	__u64 bytes;
};

/* What a CPU has sent of something that is limited per second. */
struct mp_spent {
	__u64 second;
	__u64 sent;
};

/* Packets refused, or let through by audit, by what decided. */
struct mp_denied_key {
	__u32 mapping;            /* 0: none */
	__u16 reason;
	__u16 kind;               /* MP_EVENT_DENIED or MP_EVENT_AUDITED */
};

/* Refusals that are told as one: all of a client's attempts at the same port, whatever its own. */
struct mp_repeat_key {
	struct mp_address source;
	struct mp_address destination;
	__u32 mapping;
	__be16 destination_port;
	__u8 protocol;
	__u8 reason;
	__u8 kind;
	__u8 pad[3];
};

struct mp_repeat {
	__u64 told;               /* when the last event was made */
	__u64 more;               /* packets since */
};

enum mp_event_kind {
	MP_EVENT_START = 1,
	MP_EVENT_END = 2,
	MP_EVENT_DENIED = 3,
	MP_EVENT_AUDITED = 4,     /* would be denied, and is let through */
};

enum mp_tier {
	MP_TIER_TC = 1,
	MP_TIER_XDP = 2,
};

struct mp_event {
	__u64 time;
	__u64 id;
	__u64 started;
	__u64 packets[2];         /* client to backend, backend to client */
	__u64 bytes[2];
	struct mp_flow_key key;   /* as the client asked */
	struct mp_address backend;
	__be16 backend_port;
	__u8 kind;
	__u8 reason;
	__u32 mapping;
	__u32 revision;
	__u32 ifindex;
	__u32 attempts;           /* DENIED, AUDITED: packets that this one event stands for */
	__u8 tier;
	__u8 spliced;             /* END: of a flow that was SPLICED, which `tunnels` tells more of */
	__u8 pad[2];
};

/* ---- captures: see capture.h ---- */

#define MP_CAPTURING 0x80000000u /* in `wanted_events`: somebody captures packets */
#define MP_CAPTURE_MAPPINGS 16

enum mp_capture_kind {
	MP_CAPTURE_CAME = 1,      /* of a flow, as it came */
	MP_CAPTURE_LEFT = 2,      /* the same packet, as it left */
	MP_CAPTURE_DENIED = 3,
	MP_CAPTURE_AUDITED = 4,
};

/* What a packet must fit; of prefixes, what they are for. */
enum mp_capture_wanted {
	MP_CAPTURE_SOURCE = 1,    /* the client is in a prefix */
	MP_CAPTURE_DESTINATION = 2, /* so is what it asked for */
	MP_CAPTURE_SERVICE = 4,   /* so is either of them, or the backend */
	MP_CAPTURE_MAPPING = 8,   /* one of `mappings` decided */
};

/* Longest-prefix match to a sum of enum mp_capture_wanted. */
struct mp_capture_prefix {
	__u32 prefix_length;
	struct mp_address address;
};

struct mp_capture_filter {
	__u64 until;              /* nothing is captured from then on */
	__u64 reasons;            /* bit per enum mp_reason */
	__u32 kinds;              /* bit per enum mp_capture_kind */
	__u32 wanted;             /* sum of enum mp_capture_wanted */
	__u32 rate;               /* packets per second */
	__u32 snap;               /* bytes of each packet */
	__be16 port;              /* on either side; 0: any */
	__u8 protocol;            /* 0: any */
	__u8 protocol_v6;         /* the same protocol's number in IPv6 */
	__u32 mappings[MP_CAPTURE_MAPPINGS]; /* 0: unused */
	__u32 pad;
};

struct mp_capture_spent {
	__u64 second;
	__u64 taken;              /* in that second */
	__u64 missed;             /* beyond the rate, or no room in the buffer */
};

/* In front of a captured packet's bytes, from its link header on. */
struct mp_capture {
	__u64 time;
	__u64 id;                 /* of the flow; 0: none */
	__u32 mapping;
	__u32 ifindex;            /* by which it came, or left */
	__u32 length;             /* of the packet: bytes */
	__u32 taken;              /* of these, that follow */
	__u32 segments;
	__u8 kind;                /* enum mp_capture_kind */
	__u8 reason;
	__u8 tier;
	__u8 reply;               /* backend to client */
	__u8 unresolved;          /* LEFT: the link addresses are not those that it leaves with */
	__u8 pad[7];
};

_Static_assert(sizeof(struct mp_flow_key) == 40, "mirrored in dataplane/kernel/layouts.py");
_Static_assert(sizeof(struct mp_flow) == 128, "mirrored in dataplane/kernel/layouts.py");
_Static_assert(sizeof(struct mp_tunnel) == 512, "mirrored in dataplane/kernel/layouts.py");
_Static_assert(sizeof(struct mp_splice) == 48, "mirrored in dataplane/kernel/layouts.py");
_Static_assert(sizeof(struct mp_listener_key) == 20, "mirrored in dataplane/kernel/layouts.py");
_Static_assert(sizeof(struct mp_backend) == 40, "mirrored in dataplane/kernel/layouts.py");
_Static_assert(sizeof(struct mp_backend_key) == 20, "mirrored in dataplane/kernel/layouts.py");
_Static_assert(sizeof(struct mp_quic_key) == 16, "mirrored in dataplane/kernel/layouts.py");
_Static_assert(sizeof(struct mp_limit_set) == 32, "mirrored in dataplane/kernel/layouts.py");
_Static_assert(sizeof(struct mp_limited) == 32, "mirrored in dataplane/kernel/layouts.py");
_Static_assert(sizeof(struct mp_repeat_key) == 44, "a hash key without stray bytes");
_Static_assert(sizeof(struct mp_page) == 60, "mirrored in dataplane/kernel/layouts.py");
_Static_assert(sizeof(struct mp_class_line) == 64, "a line of memory");
_Static_assert(sizeof(struct mp_capture) == 48, "mirrored in dataplane/kernel/layouts.py");
_Static_assert(sizeof(struct mp_capture_filter) == 104, "mirrored in dataplane/kernel/layouts.py");
_Static_assert(sizeof(struct mp_event) == 136, "mirrored in dataplane/kernel/layouts.py");
_Static_assert(sizeof(struct mp_block_header) == sizeof(struct mp_block_line), "the header is line 0");

#endif
