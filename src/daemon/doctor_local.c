/* SPDX-License-Identifier: Apache-2.0 */
/* What `shoal doctor` looks at on this node: secret, disk, ports, the runtime's configuration. */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "bytes.h"
#include "doctor.h"
#include "health_probe.h"
#include "net.h"
#include "port_owner.h"
#include "secret_file.h"
#include "socket_addr.h"
#include "status_text.h"

#define PROBE_MS 2000

/* ---- secret ---- */

static bool secret_read(const struct doctor *doctor, const char *path,
                        uint8_t out[CLUSTER_SECRET_BYTES])
{
    struct config_error error = {""};
    if (secret_file_read(path, out, &error) != 0) {
        doctor_add(doctor->report, FINDING_ERROR, path,
                   "give every node the same file: `shoal keygen --out F`, mode 0400, owned by the "
                   "agent's user",
                   "%s", error.text);
        return false;
    }
    bool weak = doctor_secret_weak(out, CLUSTER_SECRET_BYTES);
    doctor_add(doctor->report, weak ? FINDING_ERROR : FINDING_OK, path,
               weak ? "make one with `shoal keygen` and give it to every node" : "",
               weak ? "the secret was not drawn at random: it can be guessed" : "present, private");
    return !weak;
}

void doctor_secret(const struct doctor *doctor)
{
    doctor->report->check = "secret";
    const struct config *config = doctor->config;
    uint8_t secrets[CONFIG_SECRETS_MAX][CLUSTER_SECRET_BYTES] = {{0}};
    bool read = true;
    for (uint32_t i = 0; i < config->secret_file_count; i++)
        read = secret_read(doctor, config->secret_files[i].text, secrets[i]) && read;
    if (config->secret_file_count == 0 && config->bootstrap_count > 0)
        doctor_add(doctor->report, FINDING_ERROR, "clusterSecretFile",
                   "set it to a file with the secret of the other nodes",
                   "bootstrap names other nodes, but there is no secret to share with them");
    else if (config->secret_file_count == 0)
        doctor_add(doctor->report, FINDING_OK, "", "", "none is set: this node works alone");
    if (config->secret_file_count == 2 && read &&
        sodium_memcmp(secrets[0], secrets[1], CLUSTER_SECRET_BYTES) == 0)
        doctor_add(doctor->report, FINDING_WARNING, config->secret_files[1].text,
                   "a rotation needs the new one first and the old one second",
                   "both secrets are the same");
    sodium_memzero(secrets, sizeof secrets);
}

/* ---- disk ---- */

/* 0 or errno. */
static int write_probe(const char *directory)
{
    static const char block[4096] = {0};
    int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return errno;
    char name[32];
    (void)snprintf(name, sizeof name, ".doctor-%ld", (long)getpid());
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int code = fd < 0 ? errno : 0;
    if (fd >= 0 && (write(fd, block, sizeof block) != (ssize_t)sizeof block || fsync(fd) != 0))
        code = errno == 0 ? ENOSPC : errno;
    if (fd >= 0) {
        (void)close(fd);
        (void)unlinkat(dir, name, 0);
    }
    (void)close(dir);
    return code;
}

static void disk_space(const struct doctor *doctor, const char *path)
{
    struct statvfs info;
    char free_text[BYTES_TEXT_BYTES], want_text[BYTES_TEXT_BYTES];
    if (statvfs(path, &info) != 0)
        return;
    uint64_t free_bytes = (uint64_t)info.f_bavail * info.f_frsize;
    uint64_t reserve = doctor->config->cache_reserve_bytes;
    if (reserve == 0)
        reserve = (uint64_t)info.f_blocks * info.f_frsize / 20;
    /* The cache gives up its own for what must stay free. */
    uint64_t own = json_number_at(json_object_get(doctor->status, "cache"), "bytes");
    bool full = free_bytes + own < reserve && doctor->config->cache_mode == CONFIG_CACHE_DISK;
    doctor_add(doctor->report, full ? FINDING_ERROR : FINDING_OK, path,
               full ? "make room on this device, or lower cache.reserve or cache.capacity" : "",
               full ? "%s are free, %s are to stay free: the cache takes nothing new"
                    : "%s free, %s reserved",
               bytes_text(free_bytes, free_text), bytes_text(reserve, want_text));
}

void doctor_disk(const struct doctor *doctor)
{
    doctor->report->check = "disk";
    const char *path = doctor->config->data_dir.text;
    struct stat info;
    const json_t *cache = json_object_get(doctor->status, "cache");
    if (lstat(path, &info) != 0) {
        doctor_add(doctor->report, errno == ENOENT ? FINDING_WARNING : FINDING_ERROR, path,
                   "start the agent as a user that may make it, or see `shoal datadir --help`",
                   "the data directory: %s", strerror(errno));
        return;
    }
    if (!S_ISDIR(info.st_mode) || (info.st_mode & 0077) != 0)
        doctor_add(doctor->report, FINDING_ERROR, path, "chmod 0700, owned by the agent",
                   "no directory, or open to others: the agent will not start");
    int code = write_probe(path);
    if (code != 0)
        doctor_add(doctor->report, FINDING_ERROR, path,
                   code == ENOSPC
                       ? "make room on this device"
                       : "check the mount (read only?) and who owns it; run this as root "
                         "or as the agent's user",
                   "cannot be written to: %s", strerror(code));
    disk_space(doctor, path);
    if (json_is_true(json_object_get(cache, "degraded")))
        doctor_add(doctor->report, FINDING_ERROR, path, "the agent's log says why",
                   "the agent's cache refuses writes");
}

/* ---- ports ---- */

static void port_free(const struct doctor *doctor, const char *key, const struct peer_addr *addr,
                      int type)
{
    char text[PEER_ADDR_TEXT_BYTES];
    char who[96];
    struct peer_addr bound;
    int fd = -1;
    int err = addr->port == 0 ? 0 : socket_listen(addr, type, &fd, &bound);
    if (err == 0 && type == SOCK_STREAM && fd >= 0 && listen(fd, 1) != 0)
        err = E_IN_USE;
    if (fd >= 0)
        (void)close(fd);
    if (err == 0)
        return;
    bool known = err == E_IN_USE && port_owner(addr->port, type == SOCK_STREAM, who, sizeof who);
    doctor_add(doctor->report, FINDING_ERROR, peer_addr_text(addr, text),
               err == E_IN_USE      ? "stop that program, or choose another port"
               : err == E_NOT_FOUND ? "choose an address that this host has"
                                    : "ports below 1024 need CAP_NET_BIND_SERVICE",
               "%s cannot listen there: %s%s", key,
               err == E_IN_USE ? "another program has the port: " : err_text(err),
               err != E_IN_USE ? ""
               : known         ? who
                               : "which one only root sees");
}

static void all_free(const struct doctor *doctor)
{
    const struct config *config = doctor->config;
    unsigned before = doctor->report->errors;
    port_free(doctor, "listen.client", &config->listen_client, SOCK_STREAM);
    port_free(doctor, "listen.mesh", &config->listen_mesh, SOCK_STREAM);
    port_free(doctor, "listen.mesh", &config->listen_mesh, SOCK_DGRAM);
    port_free(doctor, "listen.admin", &config->listen_admin, SOCK_STREAM);
    if (doctor->report->errors == before)
        doctor_add(doctor->report, FINDING_OK, "", "", "free for the agent");
}

void doctor_ports(const struct doctor *doctor)
{
    doctor->report->check = "ports";
    char text[PEER_ADDR_TEXT_BYTES];
    struct peer_addr client = doctor->config->listen_client;
    if (doctor->status == NULL) {
        all_free(doctor);
        return;
    }
    if (net_unspecified(&client) && peer_addr_parse("127.0.0.1", client.port, &client) != 0)
        return;
    int err = client.port == 0 ? 0 : health_probe(&client, PROBE_MS);
    doctor_add(doctor->report, err == 0 ? FINDING_OK : FINDING_ERROR, peer_addr_text(&client, text),
               err == 0 ? ""
                        : "was the agent started with this configuration? does a filter of this "
                          "host drop its port?",
               err == 0            ? "the agent answers clients"
               : err == E_PROTOCOL ? "something that is not our agent answers clients"
               : err == E_TIMEOUT  ? "clients get no answer"
                                   : "nobody listens for clients");
}

/* ---- runtime ---- */

static void one_runtime(const struct doctor *doctor, enum runtime_kind kind, const char *sign,
                        const char *name, const char *todo)
{
    char path[CONFIG_PATH_BYTES], *message = NULL;
    size_t bytes = 0;
    unsigned changes = 0;
    struct stat info;
    int length = snprintf(path, sizeof path, "%s%s", doctor->root, sign);
    if (length < 0 || (size_t)length >= sizeof path || stat(path, &info) != 0)
        return;
    struct cli_context quiet = *doctor->context;
    quiet.err = open_memstream(&message, &bytes);
    if (quiet.err == NULL)
        return;
    int code = cli_runtime_changes(&quiet, kind, doctor->options, doctor->root, &changes);
    (void)fclose(quiet.err);
    if (message != NULL && bytes > 0 && message[bytes - 1] == '\n')
        message[bytes - 1] = '\0';
    if (code != CLI_OK)
        doctor_add(doctor->report, FINDING_WARNING, path,
                   "until that is mended it cannot be pointed at the agent", "%s",
                   message == NULL ? "" : message);
    else if (changes > 0)
        doctor_add(doctor->report, FINDING_WARNING, path, todo,
                   "%s does not ask the agent: %u files would change", name, changes);
    else
        doctor_add(doctor->report, FINDING_OK, path, "", "%s asks the agent", name);
    free(message);
}

/* By what the kubelet sets in every pod, and podman and systemd in every container. */
static bool in_container(char *const *environment)
{
    for (char *const *at = environment; at != NULL && *at != NULL; at++)
        if (strncmp(*at, "KUBERNETES_SERVICE_HOST=", 24) == 0 ||
            strncmp(*at, "container=", 10) == 0)
            return true;
    return false;
}

void doctor_runtime(const struct doctor *doctor)
{
    doctor->report->check = "runtime";
    unsigned before = doctor->report->count;
    one_runtime(doctor, RUNTIME_CONTAINERD, "/etc/containerd", "containerd",
                "see `shoal containerd plan`, then `shoal containerd apply`");
    one_runtime(doctor, RUNTIME_CONTAINERS, "/etc/containers/registries.conf", "CRI-O or podman",
                "see `shoal podman plan`, then `shoal podman apply`");
    one_runtime(doctor, RUNTIME_DOCKER, "/etc/docker/daemon.json", "dockerd",
                "see `shoal docker plan`, then `shoal docker apply`");
    if (doctor->report->count > before)
        return;
    if (doctor->root[0] == '\0' && in_container(doctor->context->environment))
        doctor_add(doctor->report, FINDING_OK, "", "",
                   "not looked at: the host is not mounted in this container; run in the pod's "
                   "container `runtime`: shoal containerd plan --config /etc/shoal/runtime.yaml "
                   "--root /host (or podman, docker)");
    else
        doctor_add(doctor->report, FINDING_WARNING, doctor->root[0] == '\0' ? "/" : doctor->root,
                   "in a container say --root with where the host's / is mounted",
                   "no configuration of containerd, CRI-O, podman or docker is here");
}
