/* UDP conversations, as many as tables hold: each of some sockets talks to each address of a row.
 *
 *   conversations serve PORT                    sends back what comes, from the address that it came to
 *   conversations open FIRST PORT COUNT         two messages in each of them, in order: an answer alone is no proof
 *                                               that somebody listens to it
 *   conversations ask FIRST PORT COUNT SECONDS  messages in ones chosen at random
 *
 * FIRST is the first address; `ask` continues the conversations of an `open` before it. Both have 64 messages of 64
 * bytes in flight, and print one JSON object: answers, seconds, lost (without an answer within 0.2 s). An answer that
 * comes from elsewhere is an error.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

#define MESSAGE 64
#define IN_FLIGHT 64
#define MAX_SOCKETS 16
#define FIRST_SOURCE_PORT 20000
#define LOST_AFTER_MS 200

static int new_socket(int port)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0 || bind(fd, (void *)&here, sizeof(here)))
		die("bind");
	return fd;
}

static void serve(int port)
{
	int fd = new_socket(port), on = 1;
	char text[MESSAGE], control[CMSG_SPACE(sizeof(struct in_pktinfo))];
	struct sockaddr_in from;

	if (setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on)))
		die("IP_PKTINFO");
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct iovec whole = { text, sizeof(text) };
		struct msghdr message = { &from, sizeof(from), &whole, 1, control, sizeof(control), 0 };
		struct in_pktinfo *to;
		ssize_t size = recvmsg(fd, &message, 0);

		if (size < 0)
			continue;
		/* The kernel tells where it came to; told back, that is where the answer comes from. */
		to = (struct in_pktinfo *)CMSG_DATA(CMSG_FIRSTHDR(&message));
		to->ipi_spec_dst = to->ipi_addr;
		to->ipi_ifindex = 0;
		whole.iov_len = size;
		sendmsg(fd, &message, 0);
	}
}

struct run {
	struct sockaddr_in first;
	uint32_t count, next; /* of those that are opened in order */
	int opening, poll, sockets, fds[MAX_SOCKETS];
	long in_flight, answers, lost;
};

static uint32_t by_chance(uint32_t below)
{
	static uint64_t state = 0x9e3779b97f4a7c15;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 32) * below >> 32;
}

static struct sockaddr_in place_of(const struct run *run, uint32_t number)
{
	struct sockaddr_in to = run->first;

	to.sin_addr.s_addr = htonl(ntohl(to.sin_addr.s_addr) + number / run->sockets);
	return to;
}

struct message {
	uint32_t number, again; /* of the conversation; the second in it */
	char filler[MESSAGE - 8];
};

static void ask(struct run *run, uint32_t number, int again)
{
	struct sockaddr_in to = place_of(run, number);
	struct message message = { number, again };

	sendto(run->fds[number % run->sockets], &message, sizeof(message), 0, (void *)&to, sizeof(to));
	run->in_flight++;
}

static void ask_more(struct run *run)
{
	while (run->in_flight < IN_FLIGHT && (!run->opening || run->next < run->count))
		ask(run, run->opening ? run->next++ : by_chance(run->count), 0);
}

static void read_answers(struct run *run, int at)
{
	struct sockaddr_in from, expected;
	socklen_t length = sizeof(from);
	struct message got;

	while (recvfrom(run->fds[at], &got, sizeof(got), MSG_DONTWAIT, (void *)&from, &length) == MESSAGE) {
		expected = place_of(run, got.number);
		if (got.number >= run->count || got.number % run->sockets != (uint32_t)at ||
		    from.sin_addr.s_addr != expected.sin_addr.s_addr || from.sin_port != expected.sin_port) {
			fputs("an answer comes from elsewhere\n", stderr);
			exit(1);
		}
		run->answers++;
		/* What was given up may come after all. */
		if (run->in_flight)
			run->in_flight--;
		if (run->opening && !got.again)
			ask(run, got.number, 1);
	}
}

static int drive(struct run *run, double seconds)
{
	double start = now(), end = start + seconds;

	ask_more(run);
	while (run->opening ? run->in_flight : now() < end) {
		struct epoll_event events[MAX_SOCKETS];
		int ready = epoll_wait(run->poll, events, MAX_SOCKETS, LOST_AFTER_MS);

		for (int i = 0; i < ready; i++)
			read_answers(run, events[i].data.fd);
		if (ready == 0) {
			run->lost += run->in_flight;
			run->in_flight = 0;
		}
		ask_more(run);
	}
	printf("{\"answers\": %ld, \"seconds\": %.6f, \"lost\": %ld}\n", run->answers, now() - start, run->lost);
	return 0;
}

int main(int argc, char **argv)
{
	struct run run = { .poll = epoll_create1(0) };

	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]));
	if (argc >= 5)
		run.count = atoi(argv[4]);
	run.opening = argc == 5 && !strcmp(argv[1], "open");
	if (run.count < 1 || (!run.opening && (argc != 6 || strcmp(argv[1], "ask")))) {
		fputs("usage: conversations serve PORT | open FIRST PORT COUNT | ask FIRST PORT COUNT SECONDS\n", stderr);
		return 2;
	}
	run.first = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(atoi(argv[3])) };
	if (inet_pton(AF_INET, argv[2], &run.first.sin_addr) != 1)
		die("not an IPv4 address");
	run.sockets = run.count < MAX_SOCKETS ? run.count : MAX_SOCKETS;
	for (int i = 0; i < run.sockets; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.fd = i };

		run.fds[i] = new_socket(FIRST_SOURCE_PORT + i);
		if (epoll_ctl(run.poll, EPOLL_CTL_ADD, run.fds[i], &event))
			die("epoll_ctl");
	}
	return drive(&run, run.opening ? 0 : atof(argv[5]));
}
