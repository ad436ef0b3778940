# SPDX-License-Identifier: Apache-2.0
# The benchmarks' own small programs: make -f Makefile -f bench/tools.mk bench-tools
$(BUILD)/bench/drain: $(BUILD)/bench/drain.o
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^
$(BUILD)/bench/pull: $(BUILD)/bench/pull.o
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ -lcrypto -lpthread
$(BUILD)/bench/straight: $(BUILD)/bench/straight.o
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ -lcrypto
$(BUILD)/bench/members: $(BUILD)/bench/members.o $(BUILD)/libsession.a $(BUILD)/libcore.a
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)
$(BUILD)/bench/costs: $(BUILD)/bench/costs.o $(BUILD)/libsession.a $(BUILD)/libcore.a
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)
.PHONY: bench-tools
bench-tools: $(BUILD)/bench/drain $(BUILD)/bench/pull $(BUILD)/bench/members $(BUILD)/bench/costs $(BUILD)/bench/straight
