// floor PORT BYTES NANOSECONDS answers every request on 127.0.0.1 with as many
// bytes, after so long: no server that takes this time for a request can have
// answered much earlier. It reads nothing of a request, which must come in one
// piece.

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static long now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void watch(int epoll, int fd) {
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
		perror("floor: epoll_ctl");
		exit(1);
	}
}

static void take(int epoll, int listener) {
	int on = 1, fd = accept(listener, NULL, NULL);
	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	watch(epoll, fd);
}

static void answer(int fd, const char *reply, size_t length, long nanoseconds) {
	char request[1 << 16];
	if (read(fd, request, sizeof request) <= 0) {
		close(fd);
		return;
	}
	for (long began = now(); now() - began < nanoseconds;)
		;
	if (write(fd, reply, length) != (ssize_t)length)
		close(fd);
}

int main(int count, char **words) {
	if (count != 4) {
		fputs("usage: floor PORT BYTES NANOSECONDS\n", stderr);
		return 2;
	}
	int body = atoi(words[2]);
	char *reply = malloc(body + 200);
	int length = snprintf(reply, 200, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", body);
	for (int i = 0; i < body; i++)
		reply[length++] = ' ';

	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 4096) != 0) {
		perror("floor: listen");
		return 1;
	}
	int epoll = epoll_create1(0);
	watch(epoll, listener);
	struct epoll_event ready[256];
	for (;;) {
		int n = epoll_wait(epoll, ready, 256, -1);
		if (n < 0 && errno != EINTR) {
			perror("floor: epoll_wait");
			return 1;
		}
		for (int i = 0; i < n; i++) {
			if (ready[i].data.fd == listener)
				take(epoll, listener);
			else
				answer(ready[i].data.fd, reply, length, atol(words[3]));
		}
	}
}
