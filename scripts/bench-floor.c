// The kernel's floor for a lab: the system calls that make and delete its objects, and nothing else.
//
//   bench-floor up NODES PODS     namespaces, veth pairs, bridges, addresses, routes of NODES nodes with PODS pods
//   bench-floor down NODES PODS   deletes the same: their namespaces, which take all else along
//   bench-floor settle            waits until the kernel has freed every namespace deleted before
//
// It is as fast as its author could make it on one thread: netlink messages go out in one send per namespace,
// without acknowledgements (the kernel reports errors all the same), links get their index from us so that nothing
// has to be looked up, sockets are opened on the way through a new namespace, bridges come up after their ports.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { GROUP = 0x706f64, BRIDGE = 1000, UNDERLAY = 1001, FIRST_PORT = 2000, POD_ETH0 = 2000, MTU = 1500, PROTOCOL = 0x70 };

static void die(const char *what) {
  fprintf(stderr, "bench-floor: %s: %s\n", what, strerror(errno));
  exit(4);
}

// --- netlink messages, collected in one buffer --------------------------------------------------------------------

static char buffer[1 << 20];
static size_t used;

static struct nlmsghdr *message(int type, int flags, const void *header, size_t size) {
  struct nlmsghdr *msg = (struct nlmsghdr *)(buffer + used);
  *msg = (struct nlmsghdr){.nlmsg_len = NLMSG_LENGTH(size), .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags};
  memcpy(NLMSG_DATA(msg), header, size);
  used += NLMSG_SPACE(size);
  return msg;
}

static struct rtattr *attr(struct nlmsghdr *msg, int type, const void *data, size_t size) {
  struct rtattr *rta = (struct rtattr *)((char *)msg + NLMSG_ALIGN(msg->nlmsg_len));
  rta->rta_type = type;
  rta->rta_len = RTA_LENGTH(size);
  if (size) memcpy(RTA_DATA(rta), data, size);
  msg->nlmsg_len = NLMSG_ALIGN(msg->nlmsg_len) + RTA_SPACE(size);
  used = (char *)msg - buffer + NLMSG_ALIGN(msg->nlmsg_len);
  return rta;
}

static void attr32(struct nlmsghdr *msg, int type, unsigned value) { attr(msg, type, &value, sizeof value); }
static void text(struct nlmsghdr *msg, int type, const char *value) { attr(msg, type, value, strlen(value) + 1); }
static struct rtattr *nest(struct nlmsghdr *msg, int type) { return attr(msg, type | NLA_F_NESTED, NULL, 0); }
static void close_nest(struct nlmsghdr *msg, struct rtattr *rta) {
  rta->rta_len = (char *)msg + NLMSG_ALIGN(msg->nlmsg_len) - (char *)rta;
}

// Sends what was collected, and dies on the first message that the kernel refused.
static void flush(int sock, const char *what) {
  char answer[8192];
  int size_limit = sizeof buffer;
  if (used > 65536) setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &size_limit, sizeof size_limit);
  if (send(sock, buffer, used, 0) != (ssize_t)used) die(what);
  used = 0;
  ssize_t size = recv(sock, answer, sizeof answer, MSG_DONTWAIT);
  if (size < 0 && errno == EAGAIN) return;
  errno = size < 0 ? errno : -((struct nlmsgerr *)NLMSG_DATA((struct nlmsghdr *)answer))->error;
  die(what);
}

static void identity(struct nlmsghdr *msg, const char *name, const unsigned char mac[6]) {
  text(msg, IFLA_IFNAME, name);
  attr(msg, IFLA_ADDRESS, mac, 6);
  attr32(msg, IFLA_MTU, MTU);
  attr32(msg, IFLA_GROUP, GROUP);
}

// One queue: without a number the kernel makes one for each processor, and waits for RCU to take all but one away.
static void one_queue(struct nlmsghdr *msg) {
  attr32(msg, IFLA_NUM_TX_QUEUES, 1);
  attr32(msg, IFLA_NUM_RX_QUEUES, 1);
}

static void add_bridge(int index, const char *name, const unsigned char mac[6]) {
  struct ifinfomsg link = {.ifi_index = index};
  struct nlmsghdr *msg = message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
  identity(msg, name, mac);
  struct rtattr *info = nest(msg, IFLA_LINKINFO);
  attr(msg, IFLA_INFO_KIND, "bridge", 6);
  struct rtattr *data = nest(msg, IFLA_INFO_DATA);
  attr32(msg, IFLA_BR_STP_STATE, 0);
  attr32(msg, IFLA_BR_FORWARD_DELAY, 0);
  close_nest(msg, data);
  close_nest(msg, info);
}

static void add_veth(int index, const char *name, const unsigned char mac[6], int master, int peer_index,
                     const char *peer_name, const unsigned char peer_mac[6], int peer_netns) {
  struct ifinfomsg link = {.ifi_index = index}, peer = {.ifi_index = peer_index};
  struct nlmsghdr *msg = message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
  identity(msg, name, mac);
  one_queue(msg);
  if (master) attr32(msg, IFLA_MASTER, master);
  struct rtattr *info = nest(msg, IFLA_LINKINFO);
  attr(msg, IFLA_INFO_KIND, "veth", 4);
  struct rtattr *data = nest(msg, IFLA_INFO_DATA);
  struct rtattr *other = attr(msg, VETH_INFO_PEER | NLA_F_NESTED, &peer, sizeof peer);
  identity(msg, peer_name, peer_mac);
  one_queue(msg);
  attr32(msg, IFLA_NET_NS_FD, peer_netns);
  close_nest(msg, other);
  close_nest(msg, data);
  close_nest(msg, info);
}

static void add_altname(int index, const char *name) {
  struct ifinfomsg link = {.ifi_index = index};
  struct nlmsghdr *msg = message(RTM_NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
  struct rtattr *list = nest(msg, IFLA_PROP_LIST);
  text(msg, IFLA_ALT_IFNAME, name);
  close_nest(msg, list);
}

// No link-local address, and for the port of a pod its hairpin flag.
static void set_modes(int index, int hairpin) {
  struct ifinfomsg link = {.ifi_index = index};
  struct nlmsghdr *msg = message(RTM_NEWLINK, 0, &link, sizeof link);
  unsigned char on = 1, none = 1;
  if (hairpin) {
    struct rtattr *info = nest(msg, IFLA_LINKINFO);
    attr(msg, IFLA_INFO_SLAVE_KIND, "bridge", 6);
    struct rtattr *data = nest(msg, IFLA_INFO_SLAVE_DATA);
    attr(msg, IFLA_BRPORT_MODE, &on, 1);
    close_nest(msg, data);
    close_nest(msg, info);
  }
  struct rtattr *spec = nest(msg, IFLA_AF_SPEC), *inet6 = nest(msg, AF_INET6);
  attr(msg, IFLA_INET6_ADDR_GEN_MODE, &none, 1);
  close_nest(msg, inet6);
  close_nest(msg, spec);
}

static void set_up(int index) {
  struct ifinfomsg link = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
  message(RTM_NEWLINK, 0, &link, sizeof link);
}

static void add_address(int index, unsigned address, int length) {
  struct ifaddrmsg header = {.ifa_family = AF_INET, .ifa_prefixlen = length, .ifa_index = index};
  struct nlmsghdr *msg = message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &header, sizeof header);
  unsigned char protocol = PROTOCOL;
  address = htonl(address);
  attr(msg, IFA_LOCAL, &address, 4);
  attr(msg, IFA_ADDRESS, &address, 4);
  attr(msg, 11 /* IFA_PROTO, not in every libc's headers */, &protocol, 1);
}

static void add_route(unsigned dst, int length, unsigned via) {
  struct rtmsg header = {.rtm_family = AF_INET, .rtm_dst_len = length, .rtm_table = RT_TABLE_MAIN,
                         .rtm_protocol = PROTOCOL, .rtm_scope = RT_SCOPE_UNIVERSE, .rtm_type = RTN_UNICAST};
  struct nlmsghdr *msg = message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &header, sizeof header);
  dst = htonl(dst);
  via = htonl(via);
  if (length) attr(msg, RTA_DST, &dst, 4);
  attr(msg, RTA_GATEWAY, &via, 4);
}

static void add_neighbour(int index, unsigned address, const unsigned char mac[6]) {
  struct ndmsg header = {.ndm_family = AF_INET, .ndm_ifindex = index, .ndm_state = NUD_PERMANENT};
  struct nlmsghdr *msg = message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &header, sizeof header);
  unsigned char protocol = PROTOCOL;
  address = htonl(address);
  attr(msg, NDA_DST, &address, 4);
  attr(msg, NDA_LLADDR, mac, 6);
  attr(msg, NDA_PROTOCOL, &protocol, 1);
}

// --- namespaces ---------------------------------------------------------------------------------------------------

struct netns { int fd, sock; };

// Makes a named namespace; this thread is in it afterwards, and stays until it makes the next one.
static struct netns make(const char *name) {
  char path[64];
  struct netns made;
  snprintf(path, sizeof path, "/run/netns/%s", name);
  int file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
  if (file < 0) die(path);
  close(file);
  if (unshare(CLONE_NEWNET)) die("unshare");
  if (mount("/proc/thread-self/ns/net", path, "none", MS_BIND, NULL)) die("mount");
  made.fd = open(path, O_RDONLY | O_CLOEXEC);
  made.sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (made.fd < 0 || made.sock < 0) die("namespace");
  return made;
}

static void drop(const char *name) {
  char path[64];
  snprintf(path, sizeof path, "/run/netns/%s", name);
  if (umount2(path, MNT_DETACH)) die(path);
  if (unlink(path)) die(path);
}

static void forward(void) {
  int fd = open("/proc/sys/net/ipv4/ip_forward", O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, "1", 1) != 1) die("ip_forward");
  close(fd);
}

// --- the lab ------------------------------------------------------------------------------------------------------

static const unsigned POD_SUBNET = 10u << 24 | 244u << 16, NODE_SUBNET = 172u << 24 | 18u << 16;

static int pods_of(int node, int nodes, int pods) { return pods / nodes + (node < pods % nodes); }

// Where it cannot raise gc_thresh3, podnet writes a lab's neighbours if they could take half of it (1,024): so do we.
static int limit_is_fixed;

static int with_neighbours(int nodes, int pods) {
  if (!limit_is_fixed) return 0;
  int need = nodes * (nodes - 1);
  for (int node = 0; node < nodes; node++) need += (pods_of(node, nodes, pods) + 1) * pods_of(node, nodes, pods);
  return need > 512;
}

// Everybody on a node's bridge: the gateway and the pods.
static void neighbours_on_bridge(int index, int node, int count) {
  unsigned char gateway[6] = {0x02, 0x70, 0, node, 0, 1}, pod[6] = {0x02, 0x70, 1, node, 0, 0};
  unsigned cidr = POD_SUBNET + ((unsigned)node << 8);
  add_neighbour(index, cidr + 1, gateway);
  for (int i = 0; i < count; i++) {
    pod[4] = i >> 8, pod[5] = i;
    add_neighbour(index, cidr + 2 + i, pod);
  }
}

static void up_node(int node, int nodes, int pods, const struct netns *fabric) {
  char name[64], altname[64];
  unsigned cidr = POD_SUBNET + ((unsigned)node << 8);
  snprintf(name, sizeof name, "floor-node%d", node);
  struct netns here = make(name);
  forward();

  int count = pods_of(node, nodes, pods), neighbours = with_neighbours(nodes, pods);
  struct netns *pod = calloc(count + 1, sizeof *pod);
  for (int i = 0; i < count; i++) {
    snprintf(name, sizeof name, "floor-pod%d-%d", node, i);
    pod[i] = make(name);
  }

  unsigned char mac[6] = {0x02, 0x70, 0, node, 0, 1}, peer[6] = {0x02, 0x70, 1, node, 0, 0};
  add_bridge(BRIDGE, "podnet0", mac);
  mac[4] = peer[4] = 0xff;
  snprintf(name, sizeof name, "u%d", node);
  add_veth(UNDERLAY, "eth0", mac, 0, FIRST_PORT + node, name, peer, fabric->fd);
  set_modes(UNDERLAY, 0);
  for (int i = 0; i < count; i++) {
    mac[2] = 2, mac[4] = peer[4] = i >> 8, mac[5] = peer[5] = i;
    snprintf(name, sizeof name, "v%d-%d", node, i);
    snprintf(altname, sizeof altname, "floor-pod%d-%d-port", node, i);
    add_veth(FIRST_PORT + i, name, mac, BRIDGE, POD_ETH0, "eth0", peer, pod[i].fd);
    add_altname(FIRST_PORT + i, altname);
    set_modes(FIRST_PORT + i, 1);
  }
  flush(here.sock, "links of a node");

  for (int i = 0; i < count; i++) {
    set_up(1);
    set_modes(POD_ETH0, 0);
    set_up(POD_ETH0);
    add_address(POD_ETH0, cidr + 2 + i, 24);
    if (neighbours) neighbours_on_bridge(POD_ETH0, node, count);
    add_route(0, 0, cidr + 1);
    flush(pod[i].sock, "inside of a pod");
    close(pod[i].sock);
    close(pod[i].fd);
  }
  free(pod);

  snprintf(name, sizeof name, "u%d", node);
  snprintf(altname, sizeof altname, "floor-node%d-underlay", node);
  struct ifinfomsg link = {.ifi_index = FIRST_PORT + node};
  struct nlmsghdr *msg = message(RTM_NEWLINK, 0, &link, sizeof link);
  attr32(msg, IFLA_MASTER, BRIDGE);
  add_altname(FIRST_PORT + node, altname);
  set_modes(FIRST_PORT + node, 0);
  set_up(FIRST_PORT + node);
  flush(fabric->sock, "port of a node");

  set_up(1);
  for (int i = 0; i < count; i++) set_up(FIRST_PORT + i);
  set_up(BRIDGE);
  add_address(BRIDGE, cidr + 1, 24);
  set_up(UNDERLAY);
  add_address(UNDERLAY, NODE_SUBNET + 2 + node, 16);
  if (neighbours) {
    neighbours_on_bridge(BRIDGE, node, count);
    for (int other = 0; other < nodes; other++) {
      unsigned char there[6] = {0x02, 0x70, 0, other, 0xff, 1};
      add_neighbour(UNDERLAY, NODE_SUBNET + 2 + other, there);
    }
  }
  for (int other = 0; other < nodes; other++)
    if (other != node) add_route(POD_SUBNET + ((unsigned)other << 8), 24, NODE_SUBNET + 2 + other);
  flush(here.sock, "inside of a node");
  close(here.sock);
  close(here.fd);
}

static void up(int nodes, int pods) {
  unsigned char mac[6] = {0x02, 0x70, 0xff, 0, 0, 1};
  limit_is_fixed = access("/proc/sys/net/ipv4/neigh/default/gc_thresh3", W_OK);
  struct netns fabric = make("floor-switch");
  add_bridge(BRIDGE, "switch0", mac);
  set_up(1);
  flush(fabric.sock, "switch");
  for (int node = 0; node < nodes; node++) up_node(node, nodes, pods, &fabric);
  set_up(BRIDGE);
  flush(fabric.sock, "switch up");
}

static void down(int nodes, int pods) {
  char name[64];
  for (int node = 0; node < nodes; node++) {
    for (int i = 0; i < pods_of(node, nodes, pods); i++) {
      snprintf(name, sizeof name, "floor-pod%d-%d", node, i);
      drop(name);
    }
    snprintf(name, sizeof name, "floor-node%d", node);
    drop(name);
  }
  drop("floor-switch");
}

// Namespaces are freed later, by one kernel worker, in the order in which they were given up. So give up one more,
// that holds the peer of a veth of ours: when this veth is gone, so is everything before it.
static void settle(void) {
  unsigned char mac[6] = {0x02, 0x70, 0xfe, 0, 0, 1}, peer[6] = {0x02, 0x70, 0xfe, 0, 0, 2};
  if (unshare(CLONE_NEWNET)) die("unshare");
  int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (unshare(CLONE_NEWNET)) die("unshare");
  int there = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (home < 0 || sock < 0 || there < 0) die("settle");
  add_veth(0, "settle0", mac, 0, 0, "settle1", peer, there);
  flush(sock, "settle");
  close(there);
  if (setns(home, CLONE_NEWNET)) die("setns");
  while (if_nametoindex("settle0")) usleep(1000);
}

int main(int argc, char **argv) {
  int nodes = argc == 4 ? atoi(argv[2]) : 0, pods = argc == 4 ? atoi(argv[3]) : 0;
  // Every open namespace takes two files until its node is done.
  struct rlimit files = {65536, 65536};
  setrlimit(RLIMIT_NOFILE, &files);
  if (argc == 2 && !strcmp(argv[1], "settle")) settle();
  else if (nodes > 0 && nodes <= 250 && pods >= 0 && pods <= 250 * nodes && !strcmp(argv[1], "up")) up(nodes, pods);
  else if (nodes > 0 && nodes <= 250 && pods >= 0 && pods <= 250 * nodes && !strcmp(argv[1], "down")) down(nodes, pods);
  else {
    fprintf(stderr, "usage: bench-floor up NODES PODS | down NODES PODS | settle   (at most 250 pods a node)\n");
    return 2;
  }
  return 0;
}
