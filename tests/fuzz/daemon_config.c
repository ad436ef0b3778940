/* SPDX-License-Identifier: Apache-2.0 */
/* Our configuration from any bytes: YAML walk, every key's parser, registries. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../src/daemon/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config;
    static struct config_error error;
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("config", 0);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        return 0;
    const struct config_options options = {.file = path};
    int err = config_load(&options, &config, &error);
    if (err == 0)
        config_close(&config);
    else if (error.text[0] == '\0' || strchr(error.text, '\n') != NULL)
        __builtin_trap(); /* every refusal is one line */
    return 0;
}
