/* SPDX-License-Identifier: GPL-2.0 */
/* What of a namespace is the appliance's, where nobody asks for everything. Put into the text of each program, as packet.h.
 *
 * Either end is an address of a service or a place where the appliance listens; or the packet is of a flow in its tables, in either
 * direction; or its daemon has opened the connection. User space fills the maps before anything is attached.
 */

struct prefix {
	u32 length;               /* bits; an IPv4 prefix has 96 more */
	u8 address[16];
};

struct place {
	u8 address[16];           /* zero: every one of `own` */
	u16 port;
	u8 protocol;
	u8 pad;
};

struct holder {
	u8 address[16];
};

struct label {
	char text[16];            /* of an interface */
};

#ifndef EVERYTHING
BPF_F_TABLE("lpm_trie", struct prefix, u8, services, SERVICES, 1 /* BPF_F_NO_PREALLOC */);
BPF_HASH(places, struct place, u8, PLACES);
BPF_HASH(own, struct holder, u8, ADDRESSES);
BPF_HASH(attached, struct label, u8, INTERFACES);
/* What the daemon has opened since we look. */
BPF_TABLE("lru_hash", struct ends, u8, opened, 65536);

#ifdef PINS
/* The data plane's: `struct mp_flow_key` and, not read, `struct mp_flow` of bpf/marchproxy.h. */
struct tuple {
	u8 source[16];
	u8 destination[16];
	u16 source_port;          /* network order, as the next one */
	u16 destination_port;
	u8 protocol;
	u8 pad[3];
};

struct flow {
	u8 unread[8];
};

BPF_TABLE_PINNED("hash", struct tuple, struct flow, flows, 1, PINS "/flows");
BPF_TABLE_PINNED("lru_hash", struct tuple, struct flow, opening, 1, PINS "/opening");
#endif

static __always_inline int is_of_a_service(const u8 *address)
{
	struct prefix key = {.length = 128};

	__builtin_memcpy(key.address, address, 16);
	return services.lookup(&key) != 0;
}

static __always_inline int is_listened_at(const u8 *address, u16 port, u8 protocol)
{
	struct place key = {.port = port, .protocol = protocol};
	struct holder holder;

	__builtin_memcpy(key.address, address, 16);
	if (places.lookup(&key))
		return 1;
	__builtin_memset(key.address, 0, 16);
	__builtin_memcpy(holder.address, address, 16);
	return places.lookup(&key) && own.lookup(&holder);
}

static __always_inline int is_flow(const struct ends *ends)
{
#ifdef PINS
	struct tuple key = {.protocol = ends->protocol};

	__builtin_memcpy(key.source, ends->source, 16);
	__builtin_memcpy(key.destination, ends->destination, 16);
	key.source_port = from_network16(ends->source_port);
	key.destination_port = from_network16(ends->destination_port);
	if (flows.lookup(&key) || opening.lookup(&key))
		return 1;
	/* As it leaves, a packet is what comes in the other direction, turned. */
	__builtin_memcpy(key.source, ends->destination, 16);
	__builtin_memcpy(key.destination, ends->source, 16);
	key.source_port = from_network16(ends->destination_port);
	key.destination_port = from_network16(ends->source_port);
	return flows.lookup(&key) || opening.lookup(&key);
#else
	return 0;
#endif
}

static __always_inline int is_daemon(void)
{
	const char *task = (const char *)bpf_get_current_task(), *parent = 0;
	u32 process = 0, above = 0;

	FIELD(process, task, OFFSET_TASK_PROCESS);
	/* Its workers come and go. */
	FIELD(parent, task, OFFSET_TASK_PARENT);
	FIELD(above, parent, OFFSET_TASK_PROCESS);
	return DAEMON && (process == DAEMON || above == DAEMON);
}
#endif

static __always_inline void turn(struct ends *to, const struct ends *from)
{
	__builtin_memcpy(to->source, from->destination, 16);
	__builtin_memcpy(to->destination, from->source, 16);
	to->source_port = from->destination_port;
	to->destination_port = from->source_port;
	to->protocol = from->protocol;
}

/* Whether packets between these are the appliance's. */
static __always_inline int is_concerned(const struct ends *ends)
{
#ifdef EVERYTHING
	return 1;
#else
	struct ends back = {};

	if (is_of_a_service(ends->source) || is_of_a_service(ends->destination) ||
	    is_listened_at(ends->source, ends->source_port, ends->protocol) ||
	    is_listened_at(ends->destination, ends->destination_port, ends->protocol) || is_flow(ends))
		return 1;
	turn(&back, ends);
	return opened.lookup((struct ends *)ends) || opened.lookup(&back);
#endif
}

/* Whether the data plane sits at an interface. */
static __always_inline int is_attached(const struct label *device)
{
#ifdef EVERYTHING
	return 1;
#else
	return attached.lookup((struct label *)device) != 0;
#endif
}

/* Remember what the daemon opens; for whatever leaves by a device. */
static __always_inline void note(const void *skb)
{
#ifndef EVERYTHING
	struct segment segment = {};
	struct ends ends = {};
	u8 yes = 1;

	/* While a packet is forwarded anybody may be the one who runs. */
	if (!packet_socket(skb) || !is_daemon() || !is_device_ours(packet_device(skb)) ||
	    !packet_parse(packet_network(skb), &ends, &segment))
		return;
	if (ends.protocol != TCP || (segment.flags & (SYN | ACK)) == SYN)
		opened.update(&ends, &yes);
#endif
}
