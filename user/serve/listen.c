// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/io.h"
#include "serve/http.h"

#define TOKEN_MIN 16
#define BACKLOG 256

/* "127.0.0.1:9477", "[::1]:9477", "localhost:0" */
static int split(const char *where, char host[64], char port[8])
{
	const char *colon = strrchr(where, ':');
	size_t len = colon ? (size_t)(colon - where) : 0;

	if (!colon || !len || len > 63 || !colon[1] || strlen(colon + 1) > 5 ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return refuse(-EINVAL, "--listen takes ADDRESS:PORT, not '%s'", where);
	if (where[0] == '[' && where[len - 1] == ']')
		snprintf(host, 64, "%.*s", (int)len - 2, where + 1);
	else
		snprintf(host, 64, "%.*s", (int)len, where);
	snprintf(port, 8, "%s", colon + 1);
	return 0;
}

static bool is_local(const struct sockaddr *addr)
{
	const struct sockaddr_in6 *six = (const void *)addr;
	const struct sockaddr_in *four = (const void *)addr;

	if (addr->sa_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&six->sin6_addr);
	return ntohl(four->sin_addr.s_addr) >> 24 == 127;
}

static void name_it(int fd, char url[96])
{
	struct sockaddr_storage addr = {0};
	socklen_t len = sizeof(addr);
	char host[64] = "?", port[8] = "?";

	if (!getsockname(fd, (struct sockaddr *)&addr, &len))
		getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host), port,
			    sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(url, 96, addr.ss_family == AF_INET6 ? "http://[%s]:%s" : "http://%s:%s", host,
		 port);
}

int listen_open(const char *where, int *out, char url[96], bool *local)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_NUMERICSERV | AI_PASSIVE},
			*list;
	_cleanup_fd_ int fd = -1;
	char host[64], port[8];
	int one = 1, err = split(where, host, port);

	if (err)
		return err;
	err = getaddrinfo(host, port, &hints, &list);
	if (err)
		return refuse(-EINVAL, "--listen %s: %s", where, gai_strerror(err));
	*local = is_local(list->ai_addr);
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) || listen(fd, BACKLOG))
		err = fail(-errno, "listen on %s", where);
	freeaddrinfo(list);
	if (err)
		return err;
	name_it(fd, url);
	*out = take_fd(&fd);
	return 0;
}

int token_read(const char *path, char **out)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *text = NULL;
	struct stat st;
	int err;

	if (fd < 0 || fstat(fd, &st))
		return fail(-errno, "read the token %s", path);
	if (st.st_mode & 077)
		return refuse(
			-EPERM,
			"the token %s can be read by others: chmod 600 it, or make a new one",
			path);
	err = io_read_all(fd, &text, NULL);
	if (err)
		return fail(err, "read the token %s", path);
	text[strcspn(text, " \t\r\n")] = 0;
	if (strlen(text) < TOKEN_MIN)
		return refuse(-EINVAL, "the token %s has fewer than %d characters", path,
			      TOKEN_MIN);
	*out = take_ptr(text);
	return 0;
}
