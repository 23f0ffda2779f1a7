// Looks at a sandbox from inside. Static, so that it runs in an image with nothing else.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void say(const char *name, long result) { printf("%s %s\n", name, result < 0 ? strerrorname_np(errno) : "ok"); }

static void calls(void) {
    say("vsock", socket(40, SOCK_STREAM, 0));
    say("vsock_high_bits", syscall(SYS_socket, 0x100000028L, SOCK_STREAM, 0));
    say("alg", socket(38, SOCK_SEQPACKET, 0));
    say("packet", socket(17, SOCK_RAW, 0));
    say("raw", socket(AF_INET, SOCK_RAW, 1));
    say("ping", socket(AF_INET, SOCK_DGRAM, 1));
    say("netlink_audit", socket(16, SOCK_RAW, 9));
    say("netlink_route", socket(16, SOCK_RAW | SOCK_CLOEXEC, 0));
    say("tcp", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    say("tcp6", socket(AF_INET6, SOCK_STREAM, 6));
    say("udp", socket(AF_INET, SOCK_DGRAM, 17));
    say("unix", socket(AF_UNIX, SOCK_STREAM, 0));
    char params[256] = {0};
    say("io_uring_setup", syscall(SYS_io_uring_setup, 4, params));
    say("userfaultfd", syscall(SYS_userfaultfd, 0));
    say("bpf", syscall(SYS_bpf, 0, params, sizeof params));
    say("perf_event_open", syscall(SYS_perf_event_open, params, 0, -1, -1, 0));
    say("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    say("add_key", syscall(SYS_add_key, "user", "a", "b", 1, -3));
    say("unshare_user", unshare(CLONE_NEWUSER));
    say("unshare_files", unshare(CLONE_FILES));
    say("clone_user", syscall(SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0));
    say("clone3", syscall(SYS_clone3, params, 64));
    say("setns", setns(0, 0));
    say("mount", mount("none", "/tmp", "tmpfs", 0, ""));
    say("umount", umount2("/tmp", 0));
    say("open_tree", syscall(428, -100, "/", 0));
    say("fsopen", syscall(430, "tmpfs", 0));
    say("chroot", chroot("/tmp"));
    say("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
    say("personality_aslr", syscall(SYS_personality, 0x0040000));
    say("personality_query", syscall(SYS_personality, 0xffffffff));
    say("syslog", syscall(SYS_syslog, 3, params, sizeof params));
    say("mknod_device", mknod("/tmp/dev", S_IFCHR | 0666, 0x103));
    say("mknod_fifo", mknod("/tmp/fifo", S_IFIFO | 0600, 0));
    say("setuid_root", setuid(0));
    say("write_root", open("/written", O_CREAT | O_WRONLY, 0600));
    say("write_supervisor", open("/.gantry/supervisor", O_WRONLY));
    say("list_socket_dir", open("/.gantry/sock", O_RDONLY | O_DIRECTORY));
    say("write_slot", open("/gantry/written", O_CREAT | O_WRONLY, 0600));
    say("write_tmp", open("/tmp/written", O_CREAT | O_WRONLY, 0600));
    pid_t child = fork();
    if (child == 0) _exit(7);
    int status = 0;
    waitpid(child, &status, 0);
    say("fork", WEXITSTATUS(status) == 7 ? 0 : -1);
}

static void cat(const char *path) {
    char buffer[4096];
    int file = open(path, O_RDONLY);
    if (file < 0) { printf("%s\n", strerrorname_np(errno)); return; }
    for (ssize_t count; (count = read(file, buffer, sizeof buffer)) > 0;) fwrite(buffer, 1, count, stdout);
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "wait";
    if (!strcmp(what, "calls")) calls();
    else if (!strcmp(what, "cat")) cat(words[2]);
    else if (!strcmp(what, "env")) for (char **pair = environ; *pair; pair++) puts(*pair);
    else if (!strcmp(what, "exit")) return atoi(words[2]);
    else for (;;) pause();
    return 0;
}
