/* SPDX-License-Identifier: GPL-2.0 */
/* Packets as tracepoints of the kernel show them. For BCC, which compiles this on the box; put into the text of each program, since
 * BCC gives meaning to maps in the main file alone.
 *
 * Fields of the kernel's structs are read at offsets that come from the running kernel's type information: `kernel.h` is
 * made by dataplane/trace/headers.py.
 */
#include <kernel.h>

#define READ(into, from) bpf_probe_read_kernel(&(into), sizeof(into), (const void *)(from))
#define FIELD(into, pointer, offset) READ(into, (const char *)(pointer) + (offset))

#define TCP 6
#define UDP 17
#define FIN 1
#define SYN 2
#define RST 4
#define ACK 16

struct ends {
	u8 source[16];            /* IPv4 as ::ffff:a.b.c.d */
	u8 destination[16];
	u16 source_port;          /* host order, as the next one */
	u16 destination_port;
	u8 protocol;
	u8 pad[3];
};

struct segment {
	u32 sequence;
	u32 length;               /* of the payload; SYN and FIN not counted */
	u8 flags;
	u8 pad[3];
};

static __always_inline u16 from_network16(u16 value)
{
	return __builtin_bswap16(value);
}

static __always_inline u32 from_network32(u32 value)
{
	return __builtin_bswap32(value);
}

/* Whether a network namespace (`struct net *`) is the appliance's. */
static __always_inline int is_namespace(const void *net)
{
	u32 number = 0;

	FIELD(number, net, OFFSET_NET_NS_INUM);
	return number == NAMESPACE;
}

static __always_inline int is_socket_ours(const void *socket)
{
	void *net = 0;

	FIELD(net, socket, OFFSET_SOCK_NET);
	return is_namespace(net);
}

static __always_inline int is_device_ours(const void *device)
{
	void *net = 0;

	FIELD(net, device, OFFSET_NET_DEVICE_NET);
	return is_namespace(net);
}

static __always_inline u32 device_number(const void *device)
{
	u32 number = 0;

	FIELD(number, device, OFFSET_NET_DEVICE_IFINDEX);
	return number;
}

static __always_inline void *packet_device(const void *skb)
{
	void *device = 0;

	FIELD(device, skb, OFFSET_SKB_DEV);
	return device;
}

/* The device of the route that was found for a packet: what is left once it is at a socket. */
static __always_inline void *packet_route_device(const void *skb)
{
	void *device = 0;
	u64 route = 0;

	FIELD(route, skb, OFFSET_SKB_DST);
	route &= ~1ull; /* whether it is counted */
	if (route)
		FIELD(device, route, OFFSET_DST_DEV);
	return device;
}

/* 0x0800 and 0x86dd are IP. */
static __always_inline u16 packet_ethertype(const void *skb)
{
	u16 type = 0;

	FIELD(type, skb, OFFSET_SKB_PROTOCOL);
	return from_network16(type);
}

static __always_inline void *packet_socket(const void *skb)
{
	void *socket = 0;

	FIELD(socket, skb, OFFSET_SKB_SK);
	return socket;
}

/* Where the network header is when a packet has just come in: the link header has been taken off. */
static __always_inline const char *packet_arrived(const void *skb)
{
	char *data = 0;

	FIELD(data, skb, OFFSET_SKB_DATA);
	return data;
}

/* Where it is at any later time, if the kernel has found it. */
static __always_inline const char *packet_network(const void *skb)
{
	char *head = 0;
	u16 offset = 0;

	FIELD(head, skb, OFFSET_SKB_HEAD);
	FIELD(offset, skb, OFFSET_SKB_NETWORK_HEADER);
	return offset && offset != 0xffff ? head + offset : 0;
}

static __always_inline void address_v4(u8 *to, const char *at)
{
	__builtin_memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	bpf_probe_read_kernel(to + 12, 4, at);
}

/* Read addresses, ports and, of TCP, the segment. Returns 0 for what is neither IPv4 nor IPv6; and for a later fragment, which has no
 * ports, if a segment is wanted. */
static __always_inline int packet_parse(const char *network, struct ends *ends, struct segment *segment)
{
	u8 first = 0, transport[20] = {};
	u16 length = 0, fragment = 0, headers = 40;

	if (!network)
		return 0;
	READ(first, network);
	if (first >> 4 == 4) {
		headers = (first & 15) * 4;
		if (headers < 20)
			return 0;
		READ(length, network + 2);
		length = from_network16(length);
		READ(fragment, network + 6);
		READ(ends->protocol, network + 9);
		address_v4(ends->source, network + 12);
		address_v4(ends->destination, network + 16);
		if (from_network16(fragment) & 0x1fff)
			return !segment;
	} else if (first >> 4 == 6) {
		READ(length, network + 4);
		length = from_network16(length) + headers;
		READ(ends->protocol, network + 6);
		READ(ends->source, network + 8);
		READ(ends->destination, network + 24);
	} else {
		return 0;
	}
	if (ends->protocol != TCP && ends->protocol != UDP)
		return 1;
	READ(transport, network + headers);
	ends->source_port = (u16)transport[0] << 8 | transport[1];
	ends->destination_port = (u16)transport[2] << 8 | transport[3];
	if (ends->protocol != TCP || !segment)
		return 1;
	segment->sequence = (u32)transport[4] << 24 | (u32)transport[5] << 16 | (u32)transport[6] << 8 | transport[7];
	segment->flags = transport[13];
	headers += (transport[12] >> 4) * 4;
	segment->length = length > headers ? length - headers : 0;
	return 1;
}

/* ---- events: as many a second as somebody can read ---- */

struct spent {
	u64 second;
	u64 taken;
};

BPF_ARRAY(spent, struct spent, 1);
BPF_ARRAY(unsaid, u64, 1);
BPF_PERF_OUTPUT(events);

static __always_inline int event_is_due(u64 now)
{
	int zero = 0;
	struct spent *held = spent.lookup(&zero);
	u64 second = now / 1000000000, *missed;

	if (!held)
		return 0;
	if (held->second != second) {
		held->second = second;
		held->taken = 0;
	}
	if (__sync_fetch_and_add(&held->taken, 1) < RATE)
		return 1;
	missed = unsaid.lookup(&zero);
	if (missed)
		__sync_fetch_and_add(missed, 1);
	return 0;
}
