/* WebSockets (RFC 6455): messages in turn, and conversations that each open one.
 *
 *   websocket serve PORT                             answers handshakes, sends back what it is sent
 *   websocket ping ADDRESS PORT SECONDS SOCKETS      opens them all, says `open`, and waits for SIGUSR1; then one
 *                                                    message of 64 bytes in flight on each of them
 *   websocket new ADDRESS PORT SECONDS SOCKETS       open, one message each way, close; so many at a time
 *
 * The clients print one JSON object: count (answers or conversations), seconds, failed. An answer that is wrong is
 * no failure to be counted: it ends the client, with what was wrong.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common.h"
#include "websocket.h"

#define MESSAGE 64
#define MAX_FDS 20000
#define MAX_HEAD 2048
#define STUCK_MS 5000

enum step { CONNECTING, OPENING, TALKING, CLOSING };

struct peer {
	enum step step;
	size_t size; /* of what has arrived */
	char accept[ACCEPT_SIZE + 1];
	unsigned char message[MESSAGE];
	unsigned char in[MAX_HEAD];
};

static struct peer peers[MAX_FDS];
static struct sockaddr_in server;
static char request[256]; /* up to the key */

static void wrong(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

static void watch(int poll, int fd, int change, unsigned events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	if (epoll_ctl(poll, change, fd, &event) < 0)
		die("epoll_ctl");
}

static void be_prompt(int fd)
{
	int on = 1;

	if (fd >= MAX_FDS)
		wrong("too many sockets");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	peers[fd].step = CONNECTING;
	peers[fd].size = 0;
}

static int sent(int fd, const void *data, size_t size)
{
	return send(fd, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static int send_frame(int fd, int client, enum opcode opcode, const void *payload, size_t size)
{
	unsigned char out[MAX_FRAME];

	return sent(fd, out, put_frame(out, client, opcode, payload, size));
}

/* Add what has arrived; as recv. */
static ssize_t receive(int fd, int flags)
{
	struct peer *peer = &peers[fd];
	ssize_t size = recv(fd, peer->in + peer->size, sizeof(peer->in) - peer->size, flags);

	if (size > 0)
		peer->size += size;
	return size;
}

static void drop(struct peer *peer, size_t size)
{
	peer->size -= size;
	memmove(peer->in, peer->in + size, peer->size);
}

/* ---- server */

static int greet(int fd, const char *head)
{
	char key[MAX_HEAD], version[8], accept[ACCEPT_SIZE + 1], answer[256];

	field(head, "Sec-WebSocket-Key", key, sizeof(key));
	field(head, "Sec-WebSocket-Version", version, sizeof(version));
	if (strncmp(head, "GET ", 4) || !switches(head) || strlen(key) != KEY_SIZE || strcmp(version, "13")) {
		const char refusal[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

		sent(fd, refusal, sizeof(refusal) - 1);
		return 0;
	}
	accept_of(key, accept);
	snprintf(answer, sizeof(answer),
		 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		 "Sec-WebSocket-Accept: %s\r\n\r\n",
		 accept);
	return sent(fd, answer, strlen(answer));
}

/* Answer what has arrived; 0: the conversation is over. */
static int answer(int fd)
{
	struct peer *peer = &peers[fd];
	struct frame frame;
	ssize_t size;

	if (peer->step != TALKING) {
		size_t head = head_size((char *)peer->in, peer->size);

		if (!head)
			return 1;
		if (!greet(fd, (char *)peer->in))
			return 0;
		peer->step = TALKING;
		drop(peer, head);
	}
	while ((size = take_frame(peer->in, peer->size, 1, &frame)) > 0) {
		if (!send_frame(fd, 0, frame.opcode, frame.payload, frame.size) || frame.opcode == CLOSE)
			return 0;
		drop(peer, size);
	}
	return size == 0;
}

static void serve(int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	int poll = epoll_create1(0), listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (void *)&at, sizeof(at)) || listen(listener, 8192) < 0)
		die("listen");
	watch(poll, listener, EPOLL_CTL_ADD, EPOLLIN);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[64];
		int count = epoll_wait(poll, events, 64, -1);

		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;

			if (fd == listener) {
				fd = accept(listener, NULL, NULL);
				if (fd < 0)
					continue;
				be_prompt(fd);
				watch(poll, fd, EPOLL_CTL_ADD, EPOLLIN);
				continue;
			}
			ssize_t size = receive(fd, MSG_DONTWAIT);

			if ((size < 0 && errno == EAGAIN) || (size > 0 && answer(fd)))
				continue;
			close(fd);
		}
	}
}

/* ---- clients */

static int report(long count, double seconds, long failed)
{
	printf("{\"count\": %ld, \"seconds\": %.6f, \"failed\": %ld}\n", count, seconds, failed);
	return 0;
}

static int new_socket(int flags)
{
	int fd = socket(AF_INET, SOCK_STREAM | flags, 0);

	if (fd < 0)
		die("socket");
	be_prompt(fd);
	if (connect(fd, (void *)&server, sizeof(server)) && errno != EINPROGRESS)
		die("connect");
	return fd;
}

/* Send the request of the handshake, with a key of its own. */
static int ask_to_open(int fd)
{
	unsigned char nonce[16];
	char key[KEY_SIZE + 1], text[sizeof(request) + KEY_SIZE + 4];

	unforeseen(nonce, sizeof(nonce));
	base64(nonce, sizeof(nonce), key);
	accept_of(key, peers[fd].accept);
	snprintf(text, sizeof(text), "%s%s\r\n\r\n", request, key);
	peers[fd].step = OPENING;
	return sent(fd, text, strlen(text));
}

/* 1: the WebSocket is open, 0: the answer is not whole, -1: it was refused. */
static int opened(struct peer *peer)
{
	char accept[ACCEPT_SIZE + 1];
	size_t head = head_size((char *)peer->in, peer->size);

	if (!head)
		return 0;
	if (strncmp((char *)peer->in, "HTTP/1.1 101", 12))
		return -1;
	field((char *)peer->in, "Sec-WebSocket-Accept", accept, sizeof(accept));
	if (!switches((char *)peer->in) || strcmp(accept, peer->accept))
		wrong("the handshake has a wrong answer");
	drop(peer, head);
	peer->step = TALKING;
	return 1;
}

/* Send a message that no other is like. */
static int say(int fd)
{
	static uint64_t number;
	struct peer *peer = &peers[fd];

	number++;
	memset(peer->message, 'm', sizeof(peer->message));
	memcpy(peer->message, &number, sizeof(number));
	return send_frame(fd, 1, BINARY, peer->message, sizeof(peer->message));
}

/* Whether the whole answer to what was said is there, and nothing else. */
static int heard(struct peer *peer, enum opcode opcode, size_t size)
{
	struct frame frame;
	ssize_t taken = take_frame(peer->in, peer->size, 0, &frame);

	if (taken == 0)
		return 0;
	if (taken != (ssize_t)peer->size || frame.opcode != opcode || frame.size != size ||
	    memcmp(frame.payload, peer->message, size))
		wrong("a wrong answer");
	drop(peer, taken);
	return 1;
}

static int open_socket(void)
{
	int fd = new_socket(0), done;

	if (!ask_to_open(fd))
		die("send");
	do {
		if (receive(fd, 0) <= 0)
			die("the answer to the handshake");
		done = opened(&peers[fd]);
	} while (!done);
	if (done < 0)
		wrong((char *)peers[fd].in);
	return fd;
}

static void wait_for_signal(void)
{
	sigset_t signals;
	int number;

	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	puts("open");
	fflush(stdout);
	if (sigwait(&signals, &number))
		die("sigwait");
}

static int ping(double seconds, int sockets)
{
	int poll = epoll_create1(0), fds[sockets];
	double start, end;
	long count = 0;

	for (int i = 0; i < sockets; i++) {
		fds[i] = open_socket();
		watch(poll, fds[i], EPOLL_CTL_ADD, EPOLLIN);
	}
	wait_for_signal();
	start = now();
	end = start + seconds;
	for (int i = 0; i < sockets; i++)
		if (!say(fds[i]))
			die("send");
	while (now() < end) {
		struct epoll_event events[64];
		int ready = epoll_wait(poll, events, 64, STUCK_MS);

		if (ready <= 0)
			wrong("no answer");
		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd;

			if (receive(fd, MSG_DONTWAIT) <= 0)
				die("recv");
			if (!heard(&peers[fd], BINARY, MESSAGE))
				continue;
			count++;
			if (!say(fd))
				die("send");
		}
	}
	return report(count, now() - start, 0);
}

/* Advance one conversation: 1 when it is over, -1 when it failed. */
static int advance(int poll, int fd)
{
	/* 1000: nothing more to say. */
	static const unsigned char normal[] = { 1000 >> 8, 1000 & 255 };
	struct peer *peer = &peers[fd];
	ssize_t size;
	int done;

	if (peer->step == CONNECTING) {
		watch(poll, fd, EPOLL_CTL_MOD, EPOLLIN);
		return ask_to_open(fd) ? 0 : -1;
	}
	size = receive(fd, 0);
	if (size < 0 && errno == EAGAIN)
		return 0;
	if (size == 0 && peer->step == CLOSING && heard(peer, CLOSE, sizeof(normal)))
		return 1;
	if (size <= 0)
		return -1;
	if (peer->step == OPENING) {
		done = opened(peer);
		return done > 0 ? say(fd) - 1 : done;
	}
	if (peer->step == TALKING && heard(peer, BINARY, MESSAGE)) {
		memcpy(peer->message, normal, sizeof(normal));
		peer->step = CLOSING;
		return send_frame(fd, 1, CLOSE, normal, sizeof(normal)) - 1;
	}
	return 0;
}

static void begin(int poll)
{
	watch(poll, new_socket(SOCK_NONBLOCK), EPOLL_CTL_ADD, EPOLLOUT);
}

static int conversations(double seconds, int sockets)
{
	int poll = epoll_create1(0);
	double start = now(), end = start + seconds;
	long count = 0, failed = 0;

	for (int i = 0; i < sockets; i++)
		begin(poll);
	while (now() < end) {
		struct epoll_event events[64];
		int ready = epoll_wait(poll, events, 64, STUCK_MS);

		if (ready <= 0)
			wrong("no answer");
		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd, over = advance(poll, fd);

			if (!over)
				continue;
			count += over > 0;
			failed += over < 0;
			close(fd);
			begin(poll);
		}
	}
	return report(count, now() - start, failed);
}

int main(int argc, char **argv)
{
	struct rlimit files = { MAX_FDS, MAX_FDS };
	int sockets = argc == 6 ? atoi(argv[5]) : 0;

	setrlimit(RLIMIT_NOFILE, &files);
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]));
	if (sockets < 1 || sockets > MAX_FDS / 2) {
		fputs("usage: websocket serve PORT | ping|new ADDRESS PORT SECONDS SOCKETS\n", stderr);
		return 2;
	}
	server = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(atoi(argv[3])) };
	if (inet_pton(AF_INET, argv[2], &server.sin_addr) != 1)
		wrong("not an IPv4 address");
	snprintf(request, sizeof(request),
		 "GET /talk HTTP/1.1\r\nHost: %s:%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
		 argv[2], argv[3]);
	if (!strcmp(argv[1], "ping"))
		return ping(atof(argv[4]), sockets);
	if (!strcmp(argv[1], "new"))
		return conversations(atof(argv[4]), sockets);
	return 2;
}
