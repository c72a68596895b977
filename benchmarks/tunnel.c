/* Streams, ping-pong and short conversations, through a proxy that takes CONNECT or straight to the server.
 *
 *   tunnel serve PORT                                   what a client's first byte asks for, see below
 *   tunnel up|down VIA ADDRESS PORT SECONDS             one stream; VIA is HOST:PORT of the proxy, or -
 *   tunnel ping VIA ADDRESS PORT SECONDS SOCKETS        one message of 64 bytes in flight on each of them
 *   tunnel new VIA ADDRESS PORT SECONDS SOCKETS         connect, one message each way, close; so many at a time
 *   tunnel hold VIA ADDRESS PORT SECONDS SOCKETS        open them all, say `open`, keep them
 *
 * The clients print one JSON object: count (bytes, answers or conversations), seconds, failed, and p50 and p99 in
 * microseconds: of an answer (ping), of a whole conversation (new).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

#define MESSAGE 64
#define CHUNK (1 << 18)
#define MAX_FDS 20000
#define MAX_SAMPLES (1 << 22)
#define STUCK_MS 5000

/* First bytes. */
#define SINK 'u'   /* the server counts, and answers with the count when a piece ends with LAST */
#define SOURCE 'd' /* the server sends for ever */
#define ECHO 'e'   /* a message is sent back */
#define ONCE 'n'   /* the same, and the server ends */
/* Not the end of the stream: many proxies cut short what a client sends before it shuts its side. */
#define LAST 'x'

static char buffer[CHUNK];
static struct sockaddr_in via, server;
static char request[256];
static int through_proxy;

static void watch(int poll, int fd, unsigned events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0)
		die("epoll_ctl");
}

static int new_socket(int flags)
{
	int fd = socket(AF_INET, SOCK_STREAM | flags, 0), on = 1;

	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

/* ---- server */

struct peer {
	char asked;
	long bytes;
};

static struct peer peers[MAX_FDS];

static void serve_one(int poll, int fd)
{
	struct peer *peer = &peers[fd];
	ssize_t size;

	if (peer->asked == SOURCE) {
		while ((size = send(fd, buffer, sizeof(buffer), MSG_NOSIGNAL | MSG_DONTWAIT)) > 0)
			;
		if (errno != EAGAIN)
			close(fd);
		return;
	}
	size = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
	if (size < 0 && errno == EAGAIN)
		return;
	if (size > 0 && !peer->asked) {
		peer->asked = buffer[0];
		if (peer->asked == SOURCE) {
			struct epoll_event event = { .events = EPOLLOUT, .data.fd = fd };

			epoll_ctl(poll, EPOLL_CTL_MOD, fd, &event);
			return;
		}
	}
	if (size > 0)
		peer->bytes += size;
	if (size > 0 && peer->asked == SINK) {
		if (buffer[size - 1] == LAST)
			send(fd, &peer->bytes, sizeof(peer->bytes), MSG_NOSIGNAL);
		return;
	}
	if (size > 0 && send(fd, buffer, size, MSG_NOSIGNAL) == size && peer->asked == ECHO)
		return;
	close(fd);
}

static void serve(int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	int poll = epoll_create1(0), listener = new_socket(0), on = 1;

	if (bind(listener, (void *)&at, sizeof(at)) || listen(listener, 8192) < 0)
		die("listen");
	watch(poll, listener, EPOLLIN);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[64];
		int count = epoll_wait(poll, events, 64, -1);

		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;

			if (fd != listener) {
				serve_one(poll, fd);
				continue;
			}
			fd = accept(listener, NULL, NULL);
			if (fd < 0)
				continue;
			if (fd >= MAX_FDS) {
				close(fd);
				continue;
			}
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
			peers[fd] = (struct peer){};
			watch(poll, fd, EPOLLIN);
		}
	}
}

/* ---- clients */

static long samples;
static unsigned *taken; /* nanoseconds */

static void sample(double seconds)
{
	if (samples < MAX_SAMPLES)
		taken[samples++] = seconds * 1e9;
}

static int by_value(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;

	return (x > y) - (x < y);
}

static double percentile(double share)
{
	return samples ? taken[(long)((samples - 1) * share)] / 1e3 : 0;
}

static int report(long count, double seconds, long failed)
{
	if (samples)
		qsort(taken, samples, sizeof(*taken), by_value);
	printf("{\"count\": %ld, \"seconds\": %.6f, \"failed\": %ld, \"p50\": %.1f, \"p99\": %.1f}\n", count, seconds,
	       failed, percentile(0.5), percentile(0.99));
	return 0;
}

/* Whether what a proxy has answered so far is a whole head that says yes; -1: it says no. */
static int answered(const char *head, size_t size)
{
	if (!memmem(head, size, "\r\n\r\n", 4))
		return 0;
	return size > 12 && !memcmp(head + 8, " 200", 4) ? 1 : -1;
}

/* A connection that reaches the server, made step by step. */
static int open_tunnel(void)
{
	int fd = new_socket(0), done = 0;
	char head[1024];
	size_t size = 0;

	if (connect(fd, (void *)(through_proxy ? &via : &server), sizeof(via)))
		die("connect");
	if (!through_proxy)
		return fd;
	if (send(fd, request, strlen(request), MSG_NOSIGNAL) < 0)
		die("send");
	while (!done) {
		/* Byte by byte: what follows the head is the server's. */
		if (size == sizeof(head) || recv(fd, head + size, 1, 0) != 1)
			die("the proxy's answer");
		done = answered(head, ++size);
	}
	if (done < 0) {
		fprintf(stderr, "the proxy refused: %.*s\n", (int)size, head);
		exit(1);
	}
	return fd;
}

static int stream_up(double seconds)
{
	int fd = open_tunnel();
	double start = now(), end = start + seconds;
	long count;

	memset(buffer, SINK, sizeof(buffer));
	while (now() < end)
		if (send(fd, buffer, sizeof(buffer), MSG_NOSIGNAL) < 0)
			die("send");
	buffer[0] = LAST;
	if (send(fd, buffer, 1, MSG_NOSIGNAL) != 1)
		die("send");
	if (recv(fd, &count, sizeof(count), MSG_WAITALL) != sizeof(count))
		die("the server's count");
	return report(count, now() - start, 0);
}

static int stream_down(double seconds)
{
	int fd = open_tunnel();
	double start = now(), end = start + seconds;
	long count = 0;
	char ask = SOURCE;

	if (send(fd, &ask, 1, MSG_NOSIGNAL) != 1)
		die("send");
	while (now() < end) {
		ssize_t size = recv(fd, buffer, sizeof(buffer), 0);

		if (size <= 0)
			die("recv");
		count += size;
	}
	return report(count, now() - start, 0);
}

static double since[MAX_FDS];

static int ping(double seconds, int sockets)
{
	int poll = epoll_create1(0), size = MESSAGE;
	double start, end;
	long count = 0;

	memset(buffer, ECHO, MESSAGE);
	for (int i = 0; i < sockets; i++) {
		int fd = open_tunnel();

		setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &size, sizeof(size));
		watch(poll, fd, EPOLLIN);
		since[fd] = now();
		if (send(fd, buffer, MESSAGE, MSG_NOSIGNAL) != MESSAGE)
			die("send");
	}
	start = now();
	end = start + seconds;
	while (now() < end) {
		struct epoll_event events[64];
		int ready = epoll_wait(poll, events, 64, STUCK_MS);

		if (ready <= 0)
			die("no answer");
		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd;

			if (recv(fd, buffer, MESSAGE, MSG_DONTWAIT) != MESSAGE)
				die("recv");
			sample(now() - since[fd]);
			count++;
			since[fd] = now();
			if (send(fd, buffer, MESSAGE, MSG_NOSIGNAL) != MESSAGE)
				die("send");
		}
	}
	return report(count, now() - start, 0);
}

enum step { CONNECTING, ASKING, TALKING };

struct talk {
	enum step step;
	size_t size;
	char head[1024];
};

static struct talk *talks;

static void begin(int poll)
{
	int fd = new_socket(SOCK_NONBLOCK);

	if (fd >= MAX_FDS)
		die("too many sockets");
	talks[fd].step = CONNECTING;
	talks[fd].size = 0;
	since[fd] = now();
	if (connect(fd, (void *)(through_proxy ? &via : &server), sizeof(via)) && errno != EINPROGRESS)
		die("connect");
	watch(poll, fd, EPOLLOUT);
}

static int say(int poll, int fd, const char *text, size_t size, enum step next)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	talks[fd].step = next;
	talks[fd].size = 0;
	epoll_ctl(poll, EPOLL_CTL_MOD, fd, &event);
	return send(fd, text, size, MSG_NOSIGNAL) == (ssize_t)size ? 0 : -1;
}

/* Advance one conversation: 1 when it is over, -1 when it failed. */
static int advance(int poll, int fd, const char *message)
{
	struct talk *talk = &talks[fd];
	ssize_t size;

	if (talk->step == CONNECTING)
		return through_proxy ? say(poll, fd, request, strlen(request), ASKING) :
				       say(poll, fd, message, MESSAGE, TALKING);
	size = recv(fd, talk->head + talk->size, sizeof(talk->head) - talk->size, 0);
	if (size < 0 && errno == EAGAIN)
		return 0;
	if (size == 0 && talk->step == TALKING && talk->size == MESSAGE)
		return 1;
	if (size <= 0)
		return -1;
	talk->size += size;
	if (talk->step == TALKING)
		return 0;
	switch (answered(talk->head, talk->size)) {
	case 0:
		return 0;
	case 1:
		return say(poll, fd, message, MESSAGE, TALKING);
	}
	return -1;
}

static int short_talks(double seconds, int sockets)
{
	int poll = epoll_create1(0);
	double start = now(), end = start + seconds;
	long count = 0, failed = 0;
	char message[MESSAGE];

	memset(message, ONCE, sizeof(message));
	talks = calloc(MAX_FDS, sizeof(*talks));
	for (int i = 0; i < sockets; i++)
		begin(poll);
	while (now() < end) {
		struct epoll_event events[64];
		int ready = epoll_wait(poll, events, 64, STUCK_MS);

		if (ready <= 0)
			die("no answer");
		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd, over = advance(poll, fd, message);

			if (!over)
				continue;
			if (over > 0)
				sample(now() - since[fd]);
			count += over > 0;
			failed += over < 0;
			close(fd);
			begin(poll);
		}
	}
	return report(count, now() - start, failed);
}

static int hold(double seconds, int sockets)
{
	double start = now();

	for (int i = 0; i < sockets; i++)
		open_tunnel();
	puts("open");
	fflush(stdout);
	usleep(seconds * 1e6);
	return report(sockets, now() - start, 0);
}

static struct sockaddr_in place(const char *address, int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };

	if (inet_pton(AF_INET, address, &at.sin_addr) != 1) {
		fprintf(stderr, "not an IPv4 address: %s\n", address);
		exit(2);
	}
	return at;
}

int main(int argc, char **argv)
{
	struct rlimit files = { MAX_FDS, MAX_FDS };
	double seconds;
	char *colon;
	int sockets;

	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]));
	if (argc < 6 || argc > 7) {
		fputs("usage: tunnel serve PORT | up|down|ping|new|hold VIA ADDRESS PORT SECONDS [SOCKETS]\n", stderr);
		return 2;
	}
	setrlimit(RLIMIT_NOFILE, &files);
	server = place(argv[3], atoi(argv[4]));
	colon = strchr(argv[2], ':');
	if (colon) {
		*colon = 0;
		via = place(argv[2], atoi(colon + 1));
		through_proxy = 1;
		snprintf(request, sizeof(request), "CONNECT %s:%s HTTP/1.1\r\nHost: %s:%s\r\n\r\n", argv[3], argv[4],
			 argv[3], argv[4]);
	}
	taken = calloc(MAX_SAMPLES, sizeof(*taken));
	seconds = atof(argv[5]);
	sockets = argc == 7 ? atoi(argv[6]) : 1;
	if (!strcmp(argv[1], "up"))
		return stream_up(seconds);
	if (!strcmp(argv[1], "down"))
		return stream_down(seconds);
	if (!strcmp(argv[1], "ping"))
		return ping(seconds, sockets);
	if (!strcmp(argv[1], "new"))
		return short_talks(seconds, sockets);
	if (!strcmp(argv[1], "hold"))
		return hold(seconds, sockets);
	return 2;
}
