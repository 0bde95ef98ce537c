// How a run comes by its critic: from the policy, from a model's folder, from another run's checkpoint, or its own one again.
import fs from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { parseJson, readTextFile } from '../checkpoint/files.js';
import { openModel } from '../checkpoint/open-model.js';
import { openSafetensors } from '../checkpoint/safetensors.js';
import { RetortError, refuse } from '../errors.js';
import { type LlamaConfig, validateConfig } from '../model/config.js';
import {
  type Critic,
  createCritic,
  followTrunk,
  freeCritic,
  shareTrunk,
  trunkConfig,
} from '../model/critic.js';
import { readWeights } from '../model/llama.js';
import { firstTokenApart, loadTokenizer } from '../text/tokenizer.js';
import type { Policy, PolicyPlan } from './policy.js';

/** What a checkpoint says of a critic, beside its weights. */
export interface CriticAbout {
  readonly sharedTrunk: boolean;
  /** Of its trunk. */
  readonly config: LlamaConfig;
}

interface CriticOptions {
  readonly criticModel?: string;
  readonly sharedTrunk: boolean;
}

/** Where the weights of a new critic come from. */
interface Source {
  readonly config: LlamaConfig;
  /** Fills the critic; its head stays zero where the source has none. */
  fill(critic: Critic): void;
  close(): void;
}

/**
 * A critic as it is at step 0.
 * @throws RetortError bad-model, bad-input for a model that does not go with the policy
 */
export function makeCritic({ llama, tokenizer }: Policy, o: CriticOptions): Critic {
  if (o.sharedTrunk) return shareTrunk(llama);
  if (o.criticModel === undefined) {
    const critic = createCritic(llama.device, llama.config);
    followTrunk(llama, critic);
    return critic;
  }
  const source = openSource(o.criticModel, { config: llama.config, tokenizer });
  try {
    const critic = createCritic(llama.device, source.config);
    try {
      source.fill(critic);
    } catch (error) {
      freeCritic(critic);
      throw error;
    }
    return critic;
  } finally {
    source.close();
  }
}

/** A critic whose weights a checkpoint holds: they are read by whoever opens it. */
export function remakeCritic({ llama }: Policy, about: CriticAbout): Critic {
  return about.sharedTrunk ? shareTrunk(llama) : createCritic(llama.device, about.config);
}

export function aboutCritic({ trunk, shared }: Critic): CriticAbout {
  return { sharedTrunk: shared, config: trunk.config };
}

/** The sizes of a run's critic, without its weights. @throws RetortError as `makeCritic` */
export function criticConfig(policy: PolicyPlan, { criticModel }: CriticOptions): LlamaConfig {
  if (criticModel === undefined) return trunkConfig(policy.config);
  const source = openSource(criticModel, policy);
  source.close();
  return trunkConfig(source.config);
}

function openSource(path: string, policy: PolicyPlan): Source {
  const source = fs.existsSync(join(path, CRITIC_FILE)) ? openCriticOf(path) : openTrunk(path);
  try {
    checkFits(path, source.config, policy);
  } catch (error) {
    source.close();
    throw error;
  }
  return source;
}

function openTrunk(path: string): Source {
  const stored = openModel(path);
  return {
    config: stored.config,
    fill: ({ trunk }) => readWeights(trunk, stored),
    close: () => stored.close(),
  };
}

const CRITIC_FILE = 'critic.safetensors';

const stateSchema = z.looseObject({
  state: z.looseObject({
    parts: z.looseObject({
      critic: z.looseObject({ about: z.looseObject({ sharedTrunk: z.boolean(), config: z.unknown() }) }),
    }),
  }),
});

/** The critic of a checkpoint. */
function openCriticOf(path: string): Source {
  const statePath = join(path, 'state.json');
  const remedy = 'name the checkpoint of a PPO run, or the folder of a model';
  const text = readTextFile(statePath, 'bad-checkpoint', remedy);
  const { about } = parseJson(text, statePath, stateSchema, 'bad-checkpoint').state.parts.critic;
  if (about.sharedTrunk)
    throw refuse(
      'bad-input',
      'criticModel',
      path,
      'its critic is an output of its policy, not a model: name another checkpoint, or a model',
    );
  const config = validateConfig(about.config as LlamaConfig);
  const file = openSafetensors(join(path, CRITIC_FILE));
  return { config, fill: (critic) => readWeights(critic, file), close: () => file.close() };
}

/** A critic reads what the policy reads. */
function checkFits(path: string, config: LlamaConfig, policy: PolicyPlan): void {
  const context = policy.config.maxPositionEmbeddings;
  if (config.maxPositionEmbeddings < context)
    throw refuse(
      'bad-input',
      `context of the critic ${path}`,
      config.maxPositionEmbeddings,
      `the policy's is ${context}: name a model with as long a context`,
    );
  const other = loadTokenizer(path);
  const apart = firstTokenApart(policy.tokenizer, other);
  if (apart !== null || config.vocabSize < policy.tokenizer.vocabSize)
    throw new RetortError(
      'bad-input',
      `the critic ${path} has another vocabulary than the policy${apart === null ? '' : ` (token ${apart} differs)`}: name a model with the same tokenizer`,
    );
}
