/* DNS as stub resolvers ask it: each question from a port of its own, which is a new conversation for whatever is in between.
 *
 *   dns serve PORT                            answer every question for an address, on every address
 *   dns ask ADDRESS PORT AT_ONCE SECONDS      keep so many questions open
 *
 * The client prints one JSON object: answers, seconds, lost (questions without an answer within 0.2 s) and wrong ones.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

#define MOST 1024
#define LOST_AFTER 0.2

static const unsigned char header[12] = { 0, 0, 1, 0, 0, 1 };       /* recursion desired, one question */
static const unsigned char name[] = "\4host\5bench\4test\0\0\1\0";  /* and A, IN: the last byte is the string's own */
/* The name again, A, IN, a minute, 192.0.2.1. */
static const unsigned char record[16] = { 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1 };

static struct sockaddr_in place(const char *address, int port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };

	if (address && inet_pton(AF_INET, address, &to.sin_addr) != 1)
		die(address);
	return to;
}

static void serve(int port)
{
	struct sockaddr_in here = place(NULL, port), from;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	unsigned char message[512];
	ssize_t size;

	if (fd < 0 || bind(fd, (void *)&here, sizeof(here)))
		die("bind");
	puts("ready");
	fflush(stdout);
	for (;;) {
		socklen_t length = sizeof(from);

		size = recvfrom(fd, message, sizeof(message) - sizeof(record), 0, (void *)&from, &length);
		if (size < (ssize_t)(sizeof(header) + sizeof(name)) || message[2] & 0x80)
			continue;
		message[2] |= 0x80;             /* an answer, with recursion, and one record in it */
		message[3] = 0x80;
		message[7] = 1;
		memcpy(message + size, record, sizeof(record));
		sendto(fd, message, size + sizeof(record), 0, (void *)&from, length);
	}
}

struct question {
	int fd;
	unsigned short id;
	double since;
};

static struct question asked[MOST];
static long answers, lost, wrong;

static void ask(int poll, int at, const struct sockaddr_in *server)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = at };
	unsigned char message[sizeof(header) + sizeof(name)];
	struct question *question = &asked[at];

	question->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	if (question->fd < 0 || connect(question->fd, (const void *)server, sizeof(*server)))
		die("connect");
	if (epoll_ctl(poll, EPOLL_CTL_ADD, question->fd, &event))
		die("epoll_ctl");
	question->id++;
	question->since = now();
	memcpy(message, header, sizeof(header));
	memcpy(message, &question->id, sizeof(question->id));
	memcpy(message + sizeof(header), name, sizeof(name));
	/* A full queue on the way is a lost question like any other. */
	send(question->fd, message, sizeof(message), 0);
}

/* Whether it is the whole answer to that question. */
static int is_right(const struct question *question, const unsigned char *message, ssize_t size)
{
	return size == sizeof(header) + sizeof(name) + sizeof(record) &&
	       !memcmp(message, &question->id, sizeof(question->id)) && message[2] & 0x80 && !(message[3] & 0xf) &&
	       !memcmp(message + sizeof(header), name, sizeof(name)) &&
	       !memcmp(message + sizeof(header) + sizeof(name), record, sizeof(record));
}

static void drive(const struct sockaddr_in *server, int at_once, double seconds)
{
	int poll = epoll_create1(0);
	double start = now(), looked = start;

	for (int at = 0; at < at_once; at++)
		ask(poll, at, server);
	while (now() < start + seconds) {
		struct epoll_event events[64];
		int count = epoll_wait(poll, events, 64, 20);
		unsigned char message[512];

		for (int i = 0; i < count; i++) {
			struct question *question = &asked[events[i].data.u32];
			ssize_t size = recv(question->fd, message, sizeof(message), 0);

			if (is_right(question, message, size))
				answers++;
			else
				wrong++;
			close(question->fd);
			ask(poll, events[i].data.u32, server);
		}
		if (now() < looked + LOST_AFTER / 4)
			continue;
		looked = now();
		for (int at = 0; at < at_once; at++) {
			if (looked < asked[at].since + LOST_AFTER)
				continue;
			lost++;
			close(asked[at].fd);
			ask(poll, at, server);
		}
	}
	printf("{\"answers\": %ld, \"seconds\": %.3f, \"lost\": %ld, \"wrong\": %ld}\n", answers, now() - start, lost,
	       wrong);
}

int main(int argc, char **argv)
{
	struct sockaddr_in server;

	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]));
	if (argc != 6 || strcmp(argv[1], "ask") || atoi(argv[4]) < 1 || atoi(argv[4]) > MOST) {
		fputs("usage: dns serve PORT | ask ADDRESS PORT AT_ONCE SECONDS\n", stderr);
		return 2;
	}
	server = place(argv[2], atoi(argv[3]));
	drive(&server, atoi(argv[4]), atof(argv[5]));
	return 0;
}
