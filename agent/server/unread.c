#include "server/unread.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ANSWER_MAX = 1024 };

/* Aligned as the kernel's structures want it. */
union answer {
	struct nlmsghdr header;
	char bytes[ANSWER_MAX];
};

/* What the kernel says to `request`, whose first member is its header: the one message, or NULL. */
static const struct nlmsghdr *ask(int fd, struct nlmsghdr *request, union answer *answer)
{
	static const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	request->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	request->nlmsg_flags = NLM_F_REQUEST;
	if (sendto(fd, request, request->nlmsg_len, MSG_DONTWAIT, (const void *)&kernel,
		    sizeof kernel) < 0)
		return NULL;
	ssize_t n = recv(fd, answer, sizeof *answer, MSG_DONTWAIT);
	if (n < (ssize_t)sizeof answer->header || answer->header.nlmsg_len > (size_t)n ||
		answer->header.nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return NULL;
	return &answer->header;
}

/* Address and port as the kernel's question wants them. */
static void put_address(const struct sockaddr_storage *a, __be32 address[4], __be16 *port)
{
	if (a->ss_family == AF_INET) {
		struct sockaddr_in in;
		memcpy(&in, a, sizeof in);
		memcpy(address, &in.sin_addr, sizeof in.sin_addr);
		*port = in.sin_port;
	} else {
		struct sockaddr_in6 in6;
		memcpy(&in6, a, sizeof in6);
		memcpy(address, &in6.sin6_addr, sizeof in6.sin6_addr);
		*port = in6.sin6_port;
	}
}

/* In the socket that has these two the other way round. */
static int64_t queue_tcp(
	int fd, const struct sockaddr_storage *ours, const struct sockaddr_storage *peers)
{
	struct {
		struct nlmsghdr header;
		struct inet_diag_req_v2 body;
	} q = {
		.header.nlmsg_len = sizeof q,
		.body = {
			.sdiag_family = (__u8)ours->ss_family,
			.sdiag_protocol = IPPROTO_TCP,
			.idiag_states = ~0u,
			.id.idiag_cookie = { INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE },
		},
	};
	put_address(peers, q.body.id.idiag_src, &q.body.id.idiag_sport);
	put_address(ours, q.body.id.idiag_dst, &q.body.id.idiag_dport);
	union answer answer;
	const struct nlmsghdr *got = ask(fd, &q.header, &answer);
	if (!got || got->nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
		return -1;
	const struct inet_diag_msg *m = NLMSG_DATA(got);
	/* Where there is none the kernel takes one that listens at the peer's port. */
	return m->idiag_state == TCP_ESTABLISHED ? (int64_t)m->idiag_rqueue : -1;
}

/* With what is still in our own socket, as his is full. */
static int64_t unread_tcp(int fd, int socket, const struct sockaddr_storage *ours,
	const struct sockaddr_storage *peers)
{
	int64_t queue = queue_tcp(fd, ours, peers);
	int unsent = 0;
	if (queue < 0 || ioctl(socket, SIOCOUTQNSD, &unsent) < 0)
		return queue;
	return queue + unsent;
}

/* Attribute `type` of what the kernel says of the UNIX socket `inode`. NULL: it has none. */
static const void *ask_unix(int fd, uint32_t inode, uint32_t show, unsigned short type, size_t size,
	union answer *answer)
{
	struct {
		struct nlmsghdr header;
		struct unix_diag_req body;
	} q = {
		.header.nlmsg_len = sizeof q,
		.body = {
			.sdiag_family = AF_UNIX,
			.udiag_states = ~0u,
			.udiag_ino = inode,
			.udiag_show = show,
			.udiag_cookie = { ~0u, ~0u },
		},
	};
	const struct nlmsghdr *got = ask(fd, &q.header, answer);
	if (!got || got->nlmsg_len < NLMSG_LENGTH(sizeof(struct unix_diag_msg)))
		return NULL;
	const struct unix_diag_msg *m = NLMSG_DATA(got);
	const struct rtattr *a = (const void *)(m + 1);
	size_t left = got->nlmsg_len - NLMSG_LENGTH(sizeof *m);
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == type && RTA_PAYLOAD(a) >= size)
			return RTA_DATA(a);
	}
	return NULL;
}

static int64_t unread_unix(int fd, int socket)
{
	struct stat st;
	union answer answer;
	if (fstat(socket, &st) < 0)
		return -1;
	const uint32_t *peer = ask_unix(
		fd, (uint32_t)st.st_ino, UDIAG_SHOW_PEER, UNIX_DIAG_PEER, sizeof *peer, &answer);
	if (!peer)
		return -1;
	const struct unix_diag_rqlen *queue = ask_unix(
		fd, *peer, UDIAG_SHOW_RQLEN, UNIX_DIAG_RQLEN, sizeof *queue, &answer);
	return queue ? (int64_t)queue->udiag_rqueue : -1;
}

int64_t unread_by_peer(const struct unread *u, int socket)
{
	struct sockaddr_storage ours = { 0 }, peers = { 0 };
	socklen_t ours_n = sizeof ours, peers_n = sizeof peers;
	if (u->fd < 0 || getsockname(socket, (void *)&ours, &ours_n) < 0 ||
		getpeername(socket, (void *)&peers, &peers_n) < 0)
		return -1;
	return ours.ss_family == AF_UNIX ? unread_unix(u->fd, socket)
					 : unread_tcp(u->fd, socket, &ours, &peers);
}

void unread_init(struct unread *u)
{
	static const struct sockaddr_storage nobody = { .ss_family = AF_INET };
	u->fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
	if (u->fd < 0)
		return;
	union answer answer;
	(void)queue_tcp(u->fd, &nobody, &nobody);
	(void)ask_unix(u->fd, 0, 0, 0, 0, &answer);
}

void unread_fini(struct unread *u)
{
	if (u->fd >= 0)
		(void)close(u->fd);
	u->fd = -1;
}
