/* New flows faster than any client opens them: each datagram is from another port to another port.
 *
 *   flood serve ADDRESS FIRST COUNT           answer on COUNT ports from FIRST on, with as many bytes
 *   flood ask FROM TO FIRST COUNT FLOWS RATE  FLOWS datagrams to these ports, RATE a second (0: as fast as it can)
 *
 * Of a port, 60,000 sources are used, one after the other: COUNT times as many datagrams are flows of their own. Headers are
 * written here (raw(7)), for a socket takes a port of its own. It is WINDOW datagrams ahead of their answers at most: the appliance
 * remembers 65,536 flows that are being opened, and answers that come later than that are to no flow. `ask` prints one JSON
 * object: sent, seconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "common.h"

#define BATCH 64
#define FIRST_SOURCE 4000
#define SOURCES 60000
#define PAYLOAD 16
#define WINDOW 16384
#define LOST_AFTER 0.1 /* s without an answer, after which none is waited for */

struct datagram {
	struct iphdr ip;
	struct udphdr udp;
	char payload[PAYLOAD];
};

static struct in_addr address_of(const char *text)
{
	struct in_addr address;

	if (inet_pton(AF_INET, text, &address) != 1)
		die(text);
	return address;
}

static void answer(int fd)
{
	static char data[BATCH][2048];
	static struct sockaddr_in from[BATCH];
	static struct iovec parts[BATCH];
	static struct mmsghdr messages[BATCH];
	int count, sent, done;

	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){ data[i], sizeof(data[i]) };
		messages[i].msg_hdr = (struct msghdr){
			.msg_name = &from[i], .msg_namelen = sizeof(from[i]), .msg_iov = &parts[i], .msg_iovlen = 1,
		};
	}
	count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < count; i++)
		parts[i].iov_len = messages[i].msg_len;
	for (done = 0; done < count; done += sent > 0 ? sent : 1)
		sent = sendmmsg(fd, messages + done, count - done, 0);
}

static int serve(const char *address, int first, int count)
{
	int poll = epoll_create1(0);
	struct epoll_event events[BATCH];

	for (int port = first; port < first + count; port++) {
		struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = address_of(address) };
		struct epoll_event event = { .events = EPOLLIN };
		int fd = event.data.fd = socket(AF_INET, SOCK_DGRAM, 0);

		if (fd < 0 || bind(fd, (void *)&here, sizeof(here)) || epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event))
			die("serve");
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		int ready = epoll_wait(poll, events, BATCH, -1);

		for (int i = 0; i < ready; i++)
			answer(events[i].data.fd);
	}
}

static void fill(struct datagram *datagram, struct in_addr from, struct in_addr to, long number, int first, int count)
{
	memset(datagram, 0, sizeof(*datagram));
	datagram->ip.version = 4;
	datagram->ip.ihl = 5;
	datagram->ip.ttl = 64;
	datagram->ip.protocol = IPPROTO_UDP;
	datagram->ip.saddr = from.s_addr;
	datagram->ip.daddr = to.s_addr;
	datagram->udp.source = htons(FIRST_SOURCE + number / count % SOURCES);
	datagram->udp.dest = htons(first + number % count);
	datagram->udp.len = htons(sizeof(*datagram) - sizeof(datagram->ip));
}

/* How many answers have come since the last call. */
static long answers(int fd)
{
	static char data[BATCH][64];
	static struct iovec parts[BATCH];
	static struct mmsghdr messages[BATCH];
	long found = 0;
	int count;

	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){ data[i], sizeof(data[i]) };
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1 };
	}
	while ((count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL)) > 0)
		found += count;
	return found;
}

static int ask(struct in_addr from, struct in_addr to, int first, int count, long flows, double rate)
{
	static struct datagram datagrams[BATCH];
	static struct iovec parts[BATCH];
	static struct mmsghdr messages[BATCH];
	struct sockaddr_in there = { .sin_family = AF_INET, .sin_addr = to };
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW), heard = socket(AF_INET, SOCK_RAW, IPPROTO_UDP), size = 64 << 20;
	double began = now(), ahead, progress = began;
	long number = 0, answered = 0, fresh;
	int batch, sent;

	if (fd < 0 || heard < 0)
		die("socket");
	setsockopt(heard, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){ &datagrams[i], sizeof(datagrams[i]) };
		messages[i].msg_hdr = (struct msghdr){
			.msg_name = &there, .msg_namelen = sizeof(there), .msg_iov = &parts[i], .msg_iovlen = 1,
		};
	}
	while (number < flows) {
		ahead = rate ? number / rate - (now() - began) : 0;
		if (ahead > 0.001)
			poll(NULL, 0, (int)(ahead * 1000));
		fresh = answers(heard);
		answered += fresh;
		if (fresh)
			progress = now();
		if (number - answered > WINDOW) {
			if (now() - progress < LOST_AFTER) {
				poll(&(struct pollfd){ .fd = heard, .events = POLLIN }, 1, 10);
				continue;
			}
			answered = number;
		}
		batch = flows - number < BATCH ? flows - number : BATCH;
		for (int i = 0; i < batch; i++)
			fill(&datagrams[i], from, to, number + i, first, count);
		sent = sendmmsg(fd, messages, batch, 0);
		if (sent < 0 && errno != ENOBUFS && errno != EAGAIN)
			die("sendmmsg");
		number += sent > 0 ? sent : 0;
	}
	printf("{\"sent\": %ld, \"seconds\": %.6f}\n", number, now() - began);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "serve"))
		return serve(argv[2], atoi(argv[3]), atoi(argv[4]));
	if (argc == 8 && !strcmp(argv[1], "ask"))
		return ask(address_of(argv[2]), address_of(argv[3]), atoi(argv[4]), atoi(argv[5]), atol(argv[6]),
			   atof(argv[7]));
	fprintf(stderr, "see flood.c\n");
	return 2;
}
