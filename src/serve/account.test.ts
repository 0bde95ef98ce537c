// Limits and budgets of keys, with a clock of the test's own.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { temporaryFolder } from '../../test/support/cli.js';
import { openAccounts } from './account.js';
import { ApiError } from './errors.js';
import type { Key, KeyLimits } from './keys.js';
import { FREE } from './prices.js';

function accountsOf(folder: string, limits: KeyLimits, prices = FREE) {
  let time = 0;
  const key: Key = { id: 'k', name: 'me', hash: '', hint: '', created: '', ...limits };
  const accounts = openAccounts({
    ...{ keys: { guarded: true, find: () => key }, log: { append() {}, close() {} }, prices, folder },
    now: () => time,
  });
  const caller = { id: key.id, name: key.name, key };
  return {
    admit: (promptTokens: number, mostTokens: number, reservedTokens = mostTokens) =>
      accounts.admit(caller, 'm', { promptTokens, mostTokens, reservedTokens }),
    wait(seconds: number) {
      time += 1000 * seconds;
    },
  };
}

const refused = (status: number, retryAfter: number | null) => (error: unknown) =>
  error instanceof ApiError && error.status === status && error.retryAfter === retryAfter;

test('less than a request a minute: one, then the next when its time has come', (t) => {
  const { admit, wait } = accountsOf(temporaryFolder(t), { requestsPerMinute: 0.5 });
  for (let i = 0; i < 3; i++) {
    admit(1, 1);
    assert.throws(() => admit(1, 1), refused(429, 120));
    wait(119);
    assert.throws(() => admit(1, 1), refused(429, 1));
    wait(1);
  }
});

test('a budget is never passed, also where cached input costs more than other', (t) => {
  const prices = { input: 1, cachedInput: 3, output: 2 };
  const { admit } = accountsOf(temporaryFolder(t), { budget: 0.001 }, prices);
  const usage = { promptTokens: 200, cachedTokens: 200, completionTokens: 100, reasoningTokens: 0 };
  const first = admit(200, 100);
  assert.throws(() => admit(200, 100), refused(402, null), '0.0008 are set aside');
  first.close('1', usage, 'done');
  assert.throws(() => admit(100, 0), refused(402, null), '0.0002 are left');
  admit(0, 100);
});

test('tokens a minute: what an answer may have is set aside, what it does not take is given back', (t) => {
  const { admit, wait } = accountsOf(temporaryFolder(t), { tokensPerMinute: 600 });
  const usage = { promptTokens: 100, cachedTokens: 0, completionTokens: 50, reasoningTokens: 0 };
  const first = admit(100, 400);
  // 100 are left, 10 more each second.
  assert.throws(() => admit(100, 10), refused(429, 1), 'a second beside it');
  assert.throws(() => admit(100, 400), refused(429, 40));
  first.close('1', usage, 'done');
  first.close('1', usage, 'done');
  admit(50, 400).close('2', { ...usage, promptTokens: 0, completionTokens: 0 }, 'left');
  assert.throws(() => admit(101, 500), refused(429, null), 'more than a minute has');
  // Left open, an answer counts when it ends: others wait until the minutes have made up for it.
  const open = admit(100, 10_000, 0);
  open.close('3', { ...usage, completionTokens: 900 }, 'done');
  assert.throws(() => admit(1, 0), refused(429, 61));
  wait(61);
  admit(1, 0);
});
