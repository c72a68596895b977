/* RFC 6455, as much of it as small messages take: the handshake, and frames of at most 125 bytes. */
#ifndef BENCH_WEBSOCKET_H
#define BENCH_WEBSOCKET_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/types.h>

#include "common.h"

#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define KEY_SIZE 24    /* 16 bytes in base64 */
#define ACCEPT_SIZE 28 /* 20 bytes in base64 */
#define MAX_PAYLOAD 125
#define MAX_FRAME (2 + 4 + MAX_PAYLOAD)
#define FINAL 0x80
#define MASKED 0x80

enum opcode { BINARY = 2, CLOSE = 8 };

struct frame {
	enum opcode opcode;
	size_t size;
	unsigned char *payload;
};

/* Bytes that nobody can foretell, as masks have to be; from the kernel in large pieces. */
static void unforeseen(unsigned char *out, size_t size)
{
	static unsigned char pool[4096];
	static size_t used = sizeof(pool);

	if (used + size > sizeof(pool)) {
		for (size_t at = 0; at < sizeof(pool); at += 256)
			if (getrandom(pool + at, 256, 0) != 256)
				die("getrandom");
		used = 0;
	}
	memcpy(out, pool + used, size);
	used += size;
}

static void base64(const unsigned char *data, size_t size, char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t at = 0; at < size; at += 3) {
		uint32_t three = data[at] << 16;

		three |= at + 1 < size ? data[at + 1] << 8 : 0;
		three |= at + 2 < size ? data[at + 2] : 0;
		*out++ = digits[three >> 18];
		*out++ = digits[three >> 12 & 63];
		*out++ = at + 1 < size ? digits[three >> 6 & 63] : '=';
		*out++ = at + 2 < size ? digits[three & 63] : '=';
	}
	*out = 0;
}

static uint32_t rotated(uint32_t value, int bits)
{
	return value << bits | value >> (32 - bits);
}

static void sha1_block(uint32_t state[5], const unsigned char block[64])
{
	static const uint32_t added[] = { 0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6 };
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], words[80];

	for (int i = 0; i < 80; i++) {
		uint32_t mixed = b ^ c ^ d;

		if (i < 16)
			words[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 |
				   block[4 * i + 3];
		else
			words[i] = rotated(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
		if (i < 20)
			mixed = (b & c) | (~b & d);
		else if (i >= 40 && i < 60)
			mixed = (b & c) | (b & d) | (c & d);
		mixed += rotated(a, 5) + e + added[i / 20] + words[i];
		e = d;
		d = c;
		c = rotated(b, 30);
		b = a;
		a = mixed;
	}
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
	state[4] += e;
}

/* FIPS 180-4, of a text that fits two blocks. */
static void sha1(const char *text, size_t size, unsigned char digest[20])
{
	uint32_t state[] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0 };
	unsigned char blocks[128] = {};
	size_t whole = size + 9 <= 64 ? 64 : 128;

	memcpy(blocks, text, size);
	blocks[size] = 0x80;
	blocks[whole - 2] = size * 8 >> 8;
	blocks[whole - 1] = size * 8;
	for (size_t at = 0; at < whole; at += 64)
		sha1_block(state, blocks + at);
	for (int i = 0; i < 20; i++)
		digest[i] = state[i / 4] >> (24 - i % 4 * 8);
}

/* What a server has to say to a client with this key. */
static void accept_of(const char key[KEY_SIZE + 1], char accept[ACCEPT_SIZE + 1])
{
	char both[KEY_SIZE + sizeof(GUID)];
	unsigned char digest[20];

	memcpy(both, key, KEY_SIZE);
	memcpy(both + KEY_SIZE, GUID, sizeof(GUID));
	sha1(both, strlen(both), digest);
	base64(digest, sizeof(digest), accept);
}

/* Bytes of the head at the start of what has arrived, which it ends with NUL; 0: not all of it is there. */
static size_t head_size(char *in, size_t size)
{
	char *end = memmem(in, size, "\r\n\r\n", 4);

	if (!end)
		return 0;
	end[2] = 0;
	return end + 4 - in;
}

/* The value of a field of a head; "" where it has none, or one that is too long. */
static void field(const char *head, const char *name, char *value, size_t room)
{
	size_t size = strlen(name);

	*value = 0;
	for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
		const char *text = line + 2;

		if (strncasecmp(text, name, size) || text[size] != ':')
			continue;
		text += size + 1;
		text += strspn(text, " \t");
		size = strcspn(text, "\r");
		if (size < room) {
			memcpy(value, text, size);
			value[size] = 0;
		}
		return;
	}
}

/* Whether a head says that this connection becomes a WebSocket. */
static int switches(const char *head)
{
	char upgrade[32], connection[64];

	field(head, "Upgrade", upgrade, sizeof(upgrade));
	field(head, "Connection", connection, sizeof(connection));
	return !strcasecmp(upgrade, "websocket") && strcasestr(connection, "upgrade");
}

static void apply_mask(unsigned char *payload, size_t size, const unsigned char mask[4])
{
	for (size_t i = 0; i < size; i++)
		payload[i] ^= mask[i % 4];
}

/* Write a frame, masked where a client sends it; its size. */
static size_t put_frame(unsigned char out[MAX_FRAME], int client, enum opcode opcode, const void *payload, size_t size)
{
	unsigned char *at = out;

	*at++ = FINAL | opcode;
	*at++ = (client ? MASKED : 0) | size;
	if (client) {
		unforeseen(at, 4);
		at += 4;
	}
	memcpy(at, payload, size);
	if (client)
		apply_mask(at, size, at - 4);
	return at + size - out;
}

/* Read the frame at the start of what a client or a server has sent: its size; 0: not all of it is there; -1: it is
 * none that they may send here. The payload is unmasked where it lies.
 */
static ssize_t take_frame(unsigned char *in, size_t size, int client, struct frame *frame)
{
	size_t before = client ? 6 : 2;

	if (size < 2)
		return 0;
	*frame = (struct frame){ in[0] & 0x7f, in[1] & 0x7f, in + before };
	if (!(in[0] & FINAL) || (frame->opcode != BINARY && frame->opcode != CLOSE))
		return -1;
	if (!(in[1] & MASKED) != !client || frame->size > MAX_PAYLOAD)
		return -1;
	if (size < before + frame->size)
		return 0;
	if (client)
		apply_mask(frame->payload, frame->size, in + 2);
	return before + frame->size;
}

#endif
