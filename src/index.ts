// The library: everything that programs import from 'retort-lm'.
export {
  type ApiAnswer,
  type ChatApi,
  type ChatApiInput,
  type ChatQuestion,
  openChatApi,
} from './api/chat.js';
export { createDevice, type Device, type DeviceOptions } from './compute/device/device.js';
export { type ErrorCode, RetortError } from './errors.js';
export type { LlamaConfig } from './model/config.js';
export { type ExportOptions, exportModel } from './publish/export.js';
export { type ReleaseOptions, releaseRun } from './publish/release.js';
export { type Report, type ReportOptions, writeReport } from './publish/report.js';
export { loadReward } from './reward/load.js';
export { defineReward, type Reward } from './reward/reward.js';
export { openScorer, type Scored, type Scorer } from './reward/score.js';
export { createEngine, type Engine, type EngineOptions } from './rollout/engine.js';
export { generateAll } from './rollout/generate.js';
export type { Completion, GenerateRequest, SamplingOptions } from './rollout/request.js';
export { defineTask, type TaskDefinition } from './task/define.js';
export { loadTask } from './task/load.js';
export { makeTask, taskNames } from './task/registry.js';
export type { Score, Split, Task } from './task/task.js';
export { buildCharTokenizer } from './text/char-tokenizer.js';
export { encodePrompt, getTemplate, type PromptTemplate } from './text/template.js';
export { loadTokenizer, type Tokenizer } from './text/tokenizer.js';
export { type DistillInput, type DistillSummary, distill } from './train/distill.js';
export { type EvaluateOptions, type Evaluation, evaluate } from './train/evaluate.js';
export { type GrpoInput, type GrpoStep, type GrpoSummary, grpo } from './train/grpo.js';
export { type Plan, type PlanOptions, planGrpo, planPpo, planSupervised } from './train/plan.js';
export { loadPolicy, type Policy } from './train/policy.js';
export { type PpoInput, type PpoStep, type PpoSummary, ppo } from './train/ppo.js';
export { type SampleInput, type SampleStep, type SampleSummary, sample } from './train/sample.js';
export {
  pretrain,
  type SupervisedInput,
  type SupervisedStep,
  type SupervisedSummary,
  sft,
} from './train/supervised.js';
