/* Ping-pong over TCP and UDP, as fast as two sockets can: what a Python client would measure is Python.
 *
 *   traffic serve PORT                                       echo on every address, TCP and UDP
 *   traffic tcp ADDRESS PORT SOCKETS IN_FLIGHT SIZE SECONDS  IN_FLIGHT messages of SIZE bytes on each connection
 *   traffic udp ADDRESS PORT SOCKETS IN_FLIGHT SIZE SECONDS  as many datagrams; one that is lost is sent again
 *
 * The clients print one JSON object: answers, seconds, resent, p50 and p99 (microseconds between answers where
 * there is one socket with one message in flight, otherwise 0).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

#define MAX_SIZE 65536
#define MAX_SOCKETS 1024
#define MAX_SAMPLES (1 << 22)
#define LOST_AFTER_MS 20

static char buffer[MAX_SIZE];

static void watch(int poll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0)
		die("epoll_ctl");
}

static int open_socket(int type, const char *address, int port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, type, 0), on = 1;

	if (fd < 0 || (address && inet_pton(AF_INET, address, &to.sin_addr) != 1))
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (address ? connect(fd, (void *)&to, sizeof(to)) : bind(fd, (void *)&to, sizeof(to)))
		die(address ? "connect" : "bind");
	return fd;
}

static void echo_stream(int fd)
{
	ssize_t size = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);

	if (size < 0 && errno == EAGAIN)
		return;
	/* What is in flight always fits the send buffer, so a short send means that the peer has gone. */
	if (size <= 0 || send(fd, buffer, size, MSG_NOSIGNAL) != size)
		close(fd);
}

static void echo_datagrams(int fd)
{
	struct sockaddr_in from;
	socklen_t length = sizeof(from);
	ssize_t size;

	while ((size = recvfrom(fd, buffer, sizeof(buffer), MSG_DONTWAIT, (void *)&from, &length)) >= 0)
		sendto(fd, buffer, size, 0, (void *)&from, length);
}

static void serve(int port)
{
	int poll = epoll_create1(0), tcp = open_socket(SOCK_STREAM, NULL, port);
	int udp = open_socket(SOCK_DGRAM, NULL, port), on = 1;

	if (listen(tcp, 1024) < 0)
		die("listen");
	watch(poll, tcp);
	watch(poll, udp);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[64];
		int count = epoll_wait(poll, events, 64, -1);

		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;

			if (fd == udp) {
				echo_datagrams(udp);
			} else if (fd != tcp) {
				echo_stream(fd);
			} else if ((fd = accept(tcp, NULL, NULL)) >= 0) {
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
				watch(poll, fd);
			}
		}
	}
}

struct run {
	int type, poll, sockets, in_flight, size;
	int fds[MAX_SOCKETS];
	long answers, resent, samples;
	double last;
	unsigned *between;	/* nanoseconds from one answer to the next */
};

static void ask(struct run *run, int fd)
{
	/* A full queue towards a slow host is a lost datagram like any other. */
	if (send(fd, buffer, run->size, MSG_NOSIGNAL) != run->size && run->type == SOCK_STREAM)
		die("send");
}

static void note_interval(struct run *run)
{
	double t = now();

	if (run->samples < MAX_SAMPLES)
		run->between[run->samples++] = (t - run->last) * 1e9;
	run->last = t;
}

static void read_answers(struct run *run, int fd)
{
	for (int i = 0; i < run->in_flight; i++) {
		ssize_t got = recv(fd, buffer, run->size, MSG_DONTWAIT);

		if (got < 0 && errno == EAGAIN)
			return;
		if (got != run->size)
			die("recv");
		run->answers++;
		if (run->between)
			note_interval(run);
		ask(run, fd);
	}
}

static void ask_all(struct run *run)
{
	for (int i = 0; i < run->sockets; i++)
		for (int j = 0; j < run->in_flight; j++)
			ask(run, run->fds[i]);
}

static int by_value(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;

	return (x > y) - (x < y);
}

static double percentile(const struct run *run, double share)
{
	return run->samples ? run->between[(long)((run->samples - 1) * share)] / 1e3 : 0;
}

static void drive(struct run *run, double seconds)
{
	double start = now(), end = start + seconds;

	run->last = start;
	ask_all(run);
	while (now() < end) {
		struct epoll_event events[64];
		int count = epoll_wait(run->poll, events, 64, LOST_AFTER_MS);

		for (int i = 0; i < count; i++)
			read_answers(run, events[i].data.fd);
		if (count == 0 && run->type == SOCK_DGRAM) {
			run->resent += (long)run->sockets * run->in_flight;
			ask_all(run);
		}
	}
	seconds = now() - start;
	if (run->samples)
		qsort(run->between, run->samples, sizeof(*run->between), by_value);
	printf("{\"answers\": %ld, \"seconds\": %.3f, \"resent\": %ld, \"p50\": %.1f, \"p99\": %.1f}\n", run->answers,
	       seconds, run->resent, percentile(run, 0.50), percentile(run, 0.99));
}

int main(int argc, char **argv)
{
	struct run run = { .poll = epoll_create1(0) };

	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]));
	if (argc != 8) {
		fputs("usage: traffic serve PORT | tcp|udp ADDRESS PORT SOCKETS IN_FLIGHT SIZE SECONDS\n", stderr);
		return 2;
	}
	run.type = strcmp(argv[1], "udp") ? SOCK_STREAM : SOCK_DGRAM;
	run.sockets = atoi(argv[4]);
	run.in_flight = atoi(argv[5]);
	run.size = atoi(argv[6]);
	if (run.sockets < 1 || run.sockets > MAX_SOCKETS || run.in_flight < 1 || run.size < 1 || run.size > MAX_SIZE)
		return 2;
	for (int i = 0; i < run.sockets; i++) {
		run.fds[i] = open_socket(run.type, argv[2], atoi(argv[3]));
		/* Readable means: a whole answer, however the stream was cut on the way. */
		setsockopt(run.fds[i], SOL_SOCKET, SO_RCVLOWAT, &run.size, sizeof(run.size));
		watch(run.poll, run.fds[i]);
	}
	if (run.sockets == 1 && run.in_flight == 1)
		run.between = calloc(MAX_SAMPLES, sizeof(*run.between));
	drive(&run, atof(argv[7]));
	return 0;
}
