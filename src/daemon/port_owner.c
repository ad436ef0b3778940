/* SPDX-License-Identifier: Apache-2.0 */
/* From a port to its socket's inode, from there to a process; see port_owner.h and proc(5). */
#include "port_owner.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES 512
#define LISTENING  0x0a /* TCP_LISTEN of the kernel, as /proc/net/tcp shows it */

/* The n-th word of a line, counted from 0; NULL: it has fewer. */
static const char *word_at(const char *line, unsigned n)
{
    line += strspn(line, " ");
    for (; n > 0 && *line != '\0'; n--) {
        line += strcspn(line, " ");
        line += strspn(line, " ");
    }
    return *line == '\0' ? NULL : line;
}

uint64_t port_owner_line(const char *line, uint16_t port, bool tcp)
{
    const char *local = word_at(line, 1), *state = word_at(line, 3), *inode = word_at(line, 9);
    const char *colon = local == NULL ? NULL : strchr(local, ':');
    if (colon == NULL || state == NULL || inode == NULL || strtoul(colon + 1, NULL, 16) != port ||
        (tcp && strtoul(state, NULL, 16) != LISTENING))
        return 0;
    return strtoull(inode, NULL, 10);
}

static uint64_t inode_in(const char *table, uint16_t port, bool tcp)
{
    char line[LINE_BYTES];
    uint64_t inode = 0;
    FILE *file = fopen(table, "re");
    while (file != NULL && inode == 0 && fgets(line, sizeof line, file) != NULL)
        inode = port_owner_line(line, port, tcp);
    if (file != NULL)
        (void)fclose(file);
    return inode;
}

static bool holds(const char *pid, const char *wanted)
{
    char path[300], link[64];
    (void)snprintf(path, sizeof path, "/proc/%.20s/fd", pid);
    DIR *directory = opendir(path);
    bool found = false;
    if (directory == NULL)
        return false;
    for (const struct dirent *at = readdir(directory); at != NULL && !found;
         at = readdir(directory)) {
        ssize_t bytes = readlinkat(dirfd(directory), at->d_name, link, sizeof link - 1);
        if (bytes < 0)
            continue;
        link[bytes] = '\0';
        found = strcmp(link, wanted) == 0;
    }
    (void)closedir(directory);
    return found;
}

static void name_process(const char *pid, char *out, size_t out_bytes)
{
    char path[64], name[64] = "";
    (void)snprintf(path, sizeof path, "/proc/%.20s/comm", pid);
    FILE *file = fopen(path, "re");
    if (file != NULL && fgets(name, sizeof name, file) != NULL)
        name[strcspn(name, "\n")] = '\0';
    if (file != NULL)
        (void)fclose(file);
    for (char *at = name; *at != '\0'; at++) /* a process chooses its name itself */
        if (*at < ' ' || *at > '~')
            *at = '?';
    (void)snprintf(out, out_bytes, "%s (pid %.20s)", name, pid);
}

bool port_owner(uint16_t port, bool tcp, char *out, size_t out_bytes)
{
    char wanted[64];
    uint64_t inode = inode_in(tcp ? "/proc/net/tcp" : "/proc/net/udp", port, tcp);
    if (inode == 0)
        inode = inode_in(tcp ? "/proc/net/tcp6" : "/proc/net/udp6", port, tcp);
    DIR *processes = inode == 0 ? NULL : opendir("/proc");
    bool found = false;
    if (processes == NULL)
        return false;
    (void)snprintf(wanted, sizeof wanted, "socket:[%" PRIu64 "]", inode);
    for (const struct dirent *at = readdir(processes); at != NULL && !found;
         at = readdir(processes)) {
        if (at->d_name[0] < '0' || at->d_name[0] > '9' || !holds(at->d_name, wanted))
            continue;
        name_process(at->d_name, out, out_bytes);
        found = true;
    }
    (void)closedir(processes);
    return found;
}
