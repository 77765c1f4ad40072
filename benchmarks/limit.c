/* The limit: what it costs the kernel to take the bytes.
 *
 * Subscribes to everything in Redis, accepts connections, and for each message writes the same bytes to each of them:
 * one write(2) per connection and nothing else. A server that does one write per client and message can't be cheaper.
 *
 *     limit PORT REDIS_PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST_FILES 1048576
#define BUFFER (64 << 20)

static const char HEAD[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    "5\r\n: hi\n\r\n";
/* As long as the gateway's own ids: the same number of bytes goes out. */
static const char BEFORE[] = "id: 2.163f149516efc.6f.XtchukSj:1\ndata: ";

static int streams[MOST_FILES], place[MOST_FILES], count;
static char tail[MOST_FILES][4]; /* last bytes of each request, to see where it ends */
static char input[BUFFER], output[BUFFER];
static size_t filled;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int tcp(int port, int listening) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) die("socket");
    if (listening) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* inherited by what is accepted */
        if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 16384)) die("listen");
    } else if (connect(fd, (struct sockaddr *)&at, sizeof at)) {
        die("connect to Redis");
    }
    return fd;
}

/* All of it: the limit may not lose anything either. The loop turns a second time only when a client is slow. */
static void write_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t written = write(fd, data, size);
        if (written < 0) {
            if (errno != EAGAIN) return; /* gone; its end is read later */
            struct pollfd one = {.fd = fd, .events = POLLOUT};
            poll(&one, 1, 1000);
            continue;
        }
        data += written;
        size -= written;
    }
}

static void broadcast(const char *payload, size_t size) {
    size_t body = sizeof BEFORE - 1 + size + 2;
    int length = sprintf(output, "%zx\r\n%s", body, BEFORE);
    memcpy(output + length, payload, size);
    memcpy(output + length + size, "\n\n\r\n", 4);
    for (int i = 0; i < count; i++) write_all(streams[i], output, length + size + 4);
}

/* The line at *at, moved past it; NULL if it isn't whole. */
static char *line(char **at, char *end) {
    char *stop = memmem(*at, end - *at, "\r\n", 2), *begin = *at;
    if (stop) *at = stop + 2;
    return stop ? begin : NULL;
}

/* Takes one answer of Redis; gives where the next begins, or NULL if this one isn't whole. */
static char *answer(char *at, char *end) {
    char *first = line(&at, end), *word = NULL, *kind = NULL;
    size_t size = 0;
    if (!first) return NULL;
    for (int n = atoi(first + 1), i = 0; i < n; i++) {
        char *head = line(&at, end);
        if (!head) return NULL;
        if (*head != '$') continue;
        size = atol(head + 1);
        if ((size_t)(end - at) < size + 2) return NULL;
        word = at;
        if (!i) kind = word;
        at += size + 2;
    }
    if (kind && !strncmp(kind, "pmessage", 8)) broadcast(word, size);
    return at;
}

static void hear(int redis) {
    ssize_t got = read(redis, input + filled, sizeof input - filled);
    if (got <= 0) exit(got < 0);
    filled += got;
    char *at = input, *next;
    while (at < input + filled && (next = answer(at, input + filled))) at = next;
    filled -= at - input;
    memmove(input, at, filled);
}

static void drop(int fd) {
    if (place[fd]) {
        int last = streams[--count];
        streams[place[fd] - 1] = last;
        place[last] = place[fd];
        place[fd] = 0;
    }
    close(fd);
}

static void listen_to(int fd) {
    static char data[65536];
    ssize_t got = read(fd, data + 4, sizeof data - 4);
    if (got <= 0) {
        if (!got || errno != EAGAIN) drop(fd);
        return;
    }
    memcpy(data, tail[fd], 4);
    memcpy(tail[fd], data + got, 4);
    if (!place[fd] && !memcmp(tail[fd], "\r\n\r\n", 4)) {
        write_all(fd, HEAD, sizeof HEAD - 1);
        streams[count++] = fd;
        place[fd] = count;
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    int redis = tcp(atoi(argv[2]), 0), door, poller = epoll_create1(0);
    static const char SUBSCRIBE[] = "*2\r\n$10\r\nPSUBSCRIBE\r\n$1\r\n*\r\n";
    write_all(redis, SUBSCRIBE, sizeof SUBSCRIBE - 1);
    door = tcp(atoi(argv[1]), 1);
    struct epoll_event one = {.events = EPOLLIN}, events[512];
    one.data.fd = redis;
    epoll_ctl(poller, EPOLL_CTL_ADD, redis, &one);
    one.data.fd = door;
    epoll_ctl(poller, EPOLL_CTL_ADD, door, &one);
    for (;;) {
        int n = epoll_wait(poller, events, 512, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == redis) {
                hear(redis);
            } else if (fd == door) {
                int new = accept4(door, NULL, NULL, SOCK_NONBLOCK);
                if (new < 0) continue;
                if (new >= MOST_FILES) { close(new); continue; }
                memset(tail[new], 0, 4);
                one.data.fd = new;
                epoll_ctl(poller, EPOLL_CTL_ADD, new, &one);
            } else {
                listen_to(fd);
            }
        }
    }
}
