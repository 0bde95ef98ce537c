// Which grammar a request holds its answer to: a schema, any object, a tool call, or none.
import { ApiError } from '../errors.js';
import type { ChatRequest } from '../schema.js';
import type { CallForm } from '../tool-calls.js';
import { callGrammar } from './calls.js';
import { choice, type Grammar } from './expression.js';
import { objectGrammar, schemaGrammar } from './schema.js';

/**
 * @param calls the form of tool calls, null where none were offered
 * @param canEnd whether the model has a token that ends an answer
 * @throws ApiError 400 where the request cannot be held to
 */
export function answerGrammar(r: ChatRequest, calls: CallForm | null, canEnd: boolean): Grammar | null {
  const { response_format: format = { type: 'text' }, tool_choice: called = 'auto', tools = [] } = r;
  const wanted = called === 'auto' || called === 'none' ? null : called;
  if (format.type === 'text' && !wanted) return null;
  const param = wanted ? 'tool_choice' : 'response_format';
  if (!canEnd)
    throw new ApiError(400, `${param}: this model has no end-of-sequence token to end an answer with`, {
      param,
    });
  if (wanted) {
    if (format.type !== 'text')
      throw new ApiError(400, 'response_format beside a tool_choice that asks for a call: leave one out', {
        param,
      });
    const asked =
      wanted === 'required' ? tools : tools.filter((t) => t.function.name === wanted.function.name);
    if (asked.length === 0 || !calls)
      throw new ApiError(400, 'tool_choice: none of the tools is the one asked for', { param });
    return callGrammar(calls, asked);
  }
  const json =
    format.type === 'json_schema'
      ? schemaGrammar(format.json_schema.schema, 'response_format.json_schema.schema')
      : objectGrammar();
  if (!calls) return json;
  // Offered tools may be called too.
  const call = callGrammar(calls, tools);
  return { root: choice(call.root, json.root), rules: new Map([...call.rules, ...json.rules]) };
}
