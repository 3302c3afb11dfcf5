/* The CNI plugin as a runtime starts it: hands the call to the warm server, or makes way for the cold path.
 *
 * Nothing is parsed here and nothing decided. The server gets, as open files: the environment, standard input, two
 * files to write its answer to, and the root folder and network namespace that the call is to act in. It says "ready",
 * this says "go", it says "done" with the exit code (podnet/cni/server/protocol.py). Before "go" nothing has
 * happened, so that podnet-python beside this executable can do the work instead. After it, only calls that may be
 * made twice are: an ADD whose server has died is an error, after which the runtime calls DEL.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET "/run/podnet/cni.sock"
#define HELLO "podnet-cni 2"
enum { VERSION_MS = 500, READY_MS = 5000, DONE_MS = 180000, INPUT_LIMIT = (64 << 20) + 1 };
enum { IO_FAILURE = 5, TRY_AGAIN_LATER = 11 }; /* the specification's codes */
enum { ENVIRON, INPUT, OUTPUT, SAID, ROOT, NETNS, FILES };
enum outcome { NOT_TAKEN, DONE, LOST, LATE };

extern char **environ;

static int put(int file, const char *data, size_t size) {
	while (size) {
		ssize_t done = write(file, data, size);
		if (done < 0 && errno == EINTR) continue;
		if (done < 0) return -1;
		data += done;
		size -= done;
	}
	return 0;
}

/* Writes all of a file in memory to another; returns 0, or -1. */
static int copy(int from, int to) {
	char data[65536];
	ssize_t size;
	off_t at = 0;
	while ((size = pread(from, data, sizeof data, at)) > 0 && put(to, data, size) == 0) at += size;
	return size ? -1 : 0;
}

static int fail(int code, const char *what, const char *why) {
	dprintf(1, "{\"code\":%d,\"msg\":\"%s\",\"details\":\"%s\"}", code, what, why);
	return 1;
}

/* Reads standard input to its end; VERSION may be asked with an open and empty one: it waits for a while only. */
static int read_input(int file, const char *command) {
	char data[65536];
	long total = 0;
	if (!*command) return 0; /* a human, who wants to know what this is */
	while (total < INPUT_LIMIT) {
		struct pollfd input = {.fd = 0, .events = POLLIN};
		if (!strcmp(command, "VERSION") && (poll(&input, 1, VERSION_MS) < 1 || !(input.revents & POLLIN))) break;
		ssize_t size = read(0, data, sizeof data);
		if (size < 0 && errno == EINTR) continue;
		if (size < 0 || put(file, data, size)) return -1;
		if (!size) break;
		total += size;
	}
	return 0;
}

static int open_files(int files[FILES]) {
	static const char *const names[] = {"environ", "stdin", "stdout", "stderr"};
	for (int i = ENVIRON; i <= SAID; i++)
		if ((files[i] = memfd_create(names[i], MFD_CLOEXEC)) < 0) return -1;
	for (char **each = environ; *each; each++)
		if (put(files[ENVIRON], *each, strlen(*each) + 1)) return -1;
	files[ROOT] = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	files[NETNS] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	return files[ROOT] < 0 || files[NETNS] < 0 ? -1 : 0;
}

static int connect_server(void) {
	const char *path = secure_getenv("PODNET_CNI_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval patience = {.tv_sec = READY_MS / 1000};
	struct ucred peer;
	socklen_t size = sizeof peer;
	if (!path) path = SOCKET;
	if (!*path || strlen(path) >= sizeof address.sun_path) return -1;
	strcpy(address.sun_path, path);
	int server = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (server < 0) return -1;
	setsockopt(server, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience); /* bounds connect too, unix(7) */
	if (connect(server, (struct sockaddr *)&address, sizeof address) ||
	    getsockopt(server, SOL_SOCKET, SO_PEERCRED, &peer, &size) || peer.uid != 0) {
		close(server);
		return -1;
	}
	return server;
}

/* The server's next word, into two bytes; returns its size, 0 where the server is gone, -1 where it is late. */
static ssize_t next_word(int server, unsigned char word[2], int patience) {
	struct pollfd wait = {.fd = server, .events = POLLIN};
	int ready;
	while ((ready = poll(&wait, 1, patience)) < 0 && errno == EINTR) continue;
	if (ready < 1) return -1;
	ssize_t size = recv(server, word, 2, 0);
	return size < 0 ? 0 : size;
}

static enum outcome ask(int server, const int files[FILES], int *code) {
	char control[CMSG_SPACE(sizeof(int[FILES]))] = {0};
	struct iovec hello = {.iov_base = HELLO, .iov_len = strlen(HELLO)};
	struct msghdr message = {
		.msg_iov = &hello, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	unsigned char word[2];
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int[FILES]));
	memcpy(CMSG_DATA(head), files, sizeof(int[FILES]));
	if (sendmsg(server, &message, MSG_NOSIGNAL) < 0) return NOT_TAKEN;
	if (next_word(server, word, READY_MS) < 1 || word[0] != 'R') return NOT_TAKEN;
	if (send(server, "G", 1, MSG_NOSIGNAL) < 0) return NOT_TAKEN;
	ssize_t size = next_word(server, word, DONE_MS);
	if (size < 0) return LATE;
	if (size != 2 || word[0] != 'D') return LOST;
	*code = word[1];
	return DONE;
}

static int cold(int input, const char *command) {
	char path[PATH_MAX + sizeof "podnet-python"];
	char *const arguments[] = {"podnet-python", "cold", NULL};
	ssize_t size = readlink("/proc/self/exe", path, PATH_MAX);
	char *name = size > 0 ? memrchr(path, '/', size) : NULL;
	if (name) {
		strcpy(name + 1, "podnet-python");
		if (input >= 0 && *command && (lseek(input, 0, SEEK_SET) < 0 || dup2(input, 0) < 0)) _exit(1);
		execve(path, arguments, environ);
	}
	return fail(TRY_AGAIN_LATER, "the podnet server does not answer, and podnet-python cannot be run in its place", strerror(errno));
}

int main(void) {
	const char *command = getenv("CNI_COMMAND");
	int files[FILES] = {-1, -1, -1, -1, -1, -1}, code = 1, server;
	if (!command) command = "";
	/* With one of the three closed, a file of ours would take its place. */
	if (fcntl(0, F_GETFD) < 0 || fcntl(1, F_GETFD) < 0 || fcntl(2, F_GETFD) < 0) return cold(-1, command);
	if (open_files(files)) return cold(-1, command);
	if (read_input(files[INPUT], command)) return fail(IO_FAILURE, "error reading from stdin", strerror(errno));
	if ((server = connect_server()) < 0) return cold(files[INPUT], command);
	switch (ask(server, files, &code)) {
	case DONE:
		copy(files[SAID], 2);
		return copy(files[OUTPUT], 1) ? 1 : code;
	case LOST:
		if (strcmp(command, "ADD")) break;
		return fail(TRY_AGAIN_LATER, "the podnet server has ended during this ADD", "nothing is lost: DEL removes what was made");
	case LATE:
		return fail(TRY_AGAIN_LATER, "the podnet server took the call, and has not answered", "waited for 180 s");
	case NOT_TAKEN:
		break;
	}
	close(server);
	return cold(files[INPUT], command);
}
