// @ts-check
// Calls to the server that this page came from, and to nobody else.

const KEY = "tunery-key";

/** What a call failed with. status: 0 where the server could not be reached. */
export class ApiError extends Error {
  /** @param {string} message @param {{status?: number, param?: string | null, retryAfterS?: number | null}} [details] */
  constructor(message, { status = 0, param = null, retryAfterS = null } = {}) {
    super(message);
    this.status = status;
    this.param = param;
    this.retryAfterS = retryAfterS;
  }
}

/** Keeps the API key until the window is closed; an empty one forgets it. @param {string} key */
export function setKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

/** @param {string} path @returns {Promise<any>} */
export async function getJson(path) {
  return (await send(path)).json();
}

/** The answer's JSON; null where it has none. @param {string} path @param {any} body @returns {Promise<any>} */
export async function postJson(path, body) {
  const answer = await send(path, post(body));
  return answer.status === 204 ? null : answer.json();
}

/**
 * @typedef {object} Answer
 * @property {{role: "assistant", content: string | null, tool_calls?: any[]}} message
 * @property {string | null} finishReason null where it was stopped or broke off
 * @property {{prompt_tokens: number, completion_tokens: number} | null} usage
 * @property {string | null} target who answered
 * @property {number | null} firstTokenMs from the request to the first piece
 * @property {number} totalMs
 * @property {boolean} aborted stopped by `signal`; the message is as far as it came
 */

/**
 * Streams the answer to a body that `buildBody({stream: true})` made.
 * @param {any} body
 * @param {{signal?: AbortSignal, onDelta?: (text: string, message: Answer["message"]) => void}} [options]
 * @returns {Promise<Answer>} throws `ApiError`; what had come until then is its `answer`
 */
export async function streamChat(body, { signal, onDelta = () => {} } = {}) {
  const started = performance.now();
  /** @type {Answer} */
  const answer = {
    message: { role: "assistant", content: null },
    finishReason: null,
    usage: null,
    target: null,
    firstTokenMs: null,
    totalMs: 0,
    aborted: false,
  };
  try {
    const response = await send("/v1/chat/completions", { ...post(body), signal });
    answer.target = response.headers.get("X-Tunery-Target");
    for await (const chunk of events(response)) {
      const text = take(chunk, answer);
      if (text === null) continue;
      answer.firstTokenMs ??= performance.now() - started;
      onDelta(text, answer.message);
    }
  } catch (error) {
    if (!signal?.aborted) throw Object.assign(asApiError(error), { answer });
    answer.aborted = true;
  } finally {
    answer.totalMs = performance.now() - started;
  }
  return answer;
}

/** Adds a chunk to the answer. @param {any} chunk @param {Answer} answer @returns {string | null} its text; null where it brought nothing to see */
function take(chunk, answer) {
  if (chunk.error) throw new ApiError(chunk.error.message, { status: 200, param: chunk.error.param });
  answer.usage = chunk.usage ?? answer.usage;
  // Of several answers (`n`) the first one is shown; their pieces come mixed.
  const choice = chunk.choices?.find((/** @type {any} */ one) => one.index === 0);
  if (!choice) return null;
  answer.finishReason = choice.finish_reason ?? answer.finishReason;
  const { content, tool_calls: calls } = choice.delta ?? {};
  if (content) answer.message.content = (answer.message.content ?? "") + content;
  for (const call of calls ?? []) takeCall(call, answer.message);
  return content || calls ? (content ?? "") : null;
}

/** @param {any} piece @param {Answer["message"]} message */
function takeCall(piece, message) {
  const calls = (message.tool_calls ??= []);
  const call = (calls[piece.index] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
  if (piece.id) call.id = piece.id;
  call.function.name += piece.function?.name ?? "";
  call.function.arguments += piece.function?.arguments ?? "";
}

/** The JSON of a stream's events; throws where it ends before `[DONE]`. @param {Response} response */
async function* events(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let ended = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += decoder.decode(value, { stream: !done });
      const lines = rest.split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (!line.startsWith("data: ")) continue;
        const data = line.slice("data: ".length).trimEnd();
        // Read on to the connection's own end: one that is left early looks like a client that went.
        if (data === "[DONE]") ended = true;
        else yield JSON.parse(data);
      }
      if (done && ended) return;
      if (done) throw new ApiError("The connection ended in the middle of the answer.");
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** @param {any} body @returns {RequestInit} */
function post(body) {
  return {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
}

/** @param {string} path @param {RequestInit} [init] */
async function send(path, init = {}) {
  const headers = new Headers(init.headers);
  const key = sessionStorage.getItem(KEY);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let response;
  try {
    response = await fetch(path, { ...init, headers });
  } catch (error) {
    throw asApiError(error);
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

/** @param {Response} response */
async function errorOf(response) {
  const body = await response.json().catch(() => null);
  const wait = Number(response.headers.get("Retry-After"));
  return new ApiError(body?.error?.message ?? `The server answered ${response.status}.`, {
    status: response.status,
    param: body?.error?.param ?? null,
    retryAfterS: wait > 0 ? wait : null,
  });
}

/** @param {any} error */
function asApiError(error) {
  if (error instanceof ApiError) return error;
  if (error?.name === "AbortError") return error;
  return new ApiError("The server cannot be reached. Is it still running?");
}
