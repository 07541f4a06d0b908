"use strict";
// The rollout viewer: samples of a prompt side by side, by step, coloured by token, searched. All of a model's text becomes
// text nodes. Steps that the page does not hold are read where they lie: over http by asking, from a file by being given them.
(() => {
  const all = JSON.parse(document.getElementById("samples").textContent);
  const touch = matchMedia("(pointer: coarse)").matches;
  const online = location.protocol.startsWith("http");
  const signs = { right: "✓ right", wrong: "✗ wrong", ungraded: "? ungraded", none: "no verdict" };
  const most = { groups: 4, samples: 8, tokens: 1200, characters: 3000, hits: 60 };

  function make(tag, properties = {}, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children.filter((child) => child !== null && child !== ""));
    return node;
  }
  const figure = (value) => (value === null || value === undefined ? "–" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(3)));
  const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + figure(Math.abs(value));
  const level = (size, bounds) => bounds.filter((bound) => size >= bound).length;
  const ofAdvantage = (value) => { const n = level(Math.abs(value || 0), [1e-6, 0.5, 1, 1.5]); return n ? (value > 0 ? "p" : "n") + n : ""; };
  const ofSurprise = (logprob) => { const n = logprob === null || logprob === undefined ? 0 : level(-logprob, [0.1, 0.7, 1.6, 3]); return n ? `s${n}` : ""; };
  const whole = (sample) => sample.texts ? sample.texts.join("") : sample.text;

  // ---- what is read from a file of the run, brought into the page's form (as reporting/viewer.py does)
  const cut = (value) => { const text = value === null || value === undefined ? "" : String(value); return text.length > most.characters ? `${text.slice(0, 2000)}\n[…]\n${text.slice(-1000)}` : text; };
  const number = (value) => (typeof value === "number" && isFinite(value) ? value : null);
  function readSample(value, title) {
    const tokens = Array.isArray(value.texts) ? { texts: value.texts.slice(0, most.tokens).map(cut), logprobs: (Array.isArray(value.logprobs) ? value.logprobs : []).map(number), left_out: Array.isArray(value.left_out) ? value.left_out : null } : { text: cut(value.completion) };
    const parts = value.parts && typeof value.parts === "object" ? Object.fromEntries(Object.entries(value.parts).map(([name, part]) => [name, number(part)])) : {};
    return { title, verdict: signs[value.verdict] ? value.verdict : "none", reason: cut(value.reason), reward: number(value.reward), advantage: number(value.advantage), in_loss: value.in_loss !== false, tokens: number(value.tokens), cut_off: value.finish_reason === "length", parts, ...tokens };
  }
  function readFile(text, name) {
    if (!name.endsWith(".jsonl")) {
      return JSON.parse(text).groups.slice(0, most.groups).map((group) => ({
        heading: `prompt ${group.prompt_id}`, prompt: cut(group.prompt), answer: cut(group.answer),
        samples: group.samples.slice(0, most.samples).map((sample) => readSample(sample, `sample ${sample.sample}`)),
      }));
    }
    const groups = new Map();
    for (const line of text.split("\n").slice(0, 4000)) {
      if (!line) continue;
      const sample = JSON.parse(line), row = sample.row || {};
      if (!groups.has(sample.prompt_id)) groups.set(sample.prompt_id, { heading: `prompt ${sample.prompt_id}`, prompt: cut(row.prompt || row.problem || row.question || row.Question), answer: cut(row.answer || row.Answer), samples: [] });
      groups.get(sample.prompt_id).samples.push(readSample(sample, `sample ${sample.sample}`));
    }
    return [...groups.values()];
  }

  function view(place) {
    const stage = all[place.dataset.viewer];
    const state = { source: stage.rollouts.length ? "rollouts" : "benchmarks", at: 0, group: 0, colour: "advantage", verdict: "", query: "", asked: 0 };
    const held = () => (online ? stage.rollouts : stage.rollouts.filter((entry) => entry.groups));
    const entry = () => held()[state.at] || null;
    const groups = () => (state.source === "benchmarks" ? stage.benchmarks : (entry() && entry().groups) || []);
    const called = (one) => `${one.step === null || one.step === undefined ? "" : `step ${one.step.toLocaleString("en")}, `}rollout ${one.rollout.toLocaleString("en")}`;
    state.at = Math.max(0, held().length - 1);
    // Opens at a prompt whose samples differ, where there is one to see.
    state.group = Math.max(0, groups().findIndex((group) => group.samples.some((sample) => sample.advantage)));

    // ---- controls
    const sources = make("div", { className: "tabs" });
    const slider = make("input", { type: "range", min: 0, step: 1, ariaLabel: "Step of training" });
    const label = make("output");
    const back = make("button", { type: "button", className: "button", textContent: "‹", title: "Earlier step", ariaLabel: "Earlier step" });
    const onward = make("button", { type: "button", className: "button", textContent: "›", title: "Later step", ariaLabel: "Later step" });
    const steps = make("div", { className: "grow" }, back, slider, onward, label);
    const colouring = make("select", { ariaLabel: "Colour of tokens" }, ...[["advantage", "colour: advantage"], ["surprise", "colour: surprise"], ["", "no colours"]].map(([value, text]) => make("option", { value, textContent: text })));
    const verdicts = make("select", { ariaLabel: "Verdict" }, ...[["", "all verdicts"], ["right", "right"], ["wrong", "wrong"], ["ungraded", "ungraded"]].map(([value, text]) => make("option", { value, textContent: text })));
    const search = make("input", { type: "search", placeholder: "Search prompts, answers, reasons", ariaLabel: "Search the samples of this stage" });
    const found = make("ul", { className: "found", hidden: true });
    const key = make("div", { className: "key" });
    const tabs = make("div", { className: "tabs", role: "tablist", ariaLabel: "Prompts" });
    const body = make("div", { ariaLive: "off" });
    const panel = make("div", { className: "card panel" }, make("div", { className: "controls" }, steps, colouring, verdicts, search), found, key, tabs, body);
    place.append(sources, panel);

    if (stage.benchmarks.length && stage.rollouts.length) {
      for (const [name, text] of [["rollouts", "Training rollouts"], ["benchmarks", stage.compared ? `${stage.compared}: before and after` : "Benchmarks"]]) {
        const button = make("button", { type: "button", className: "button", textContent: text });
        button.dataset.source = name;
        button.addEventListener("click", () => { state.source = name; state.group = 0; show(); });
        sources.append(button);
      }
    }

    // ---- one sample
    function text(sample, pre) {
      const tokens = sample.texts || [sample.text];
      const query = state.query.toLowerCase(), lower = tokens.join("").toLowerCase();
      const marked = [];
      for (let at = query ? lower.indexOf(query) : -1; at >= 0 && marked.length < 500; at = lower.indexOf(query, at + query.length)) marked.push([at, at + query.length]);
      if (!sample.texts) { // as a whole: thinking dimmed, hits marked
        const end = lower.indexOf("</think>") + 8;
        let at = 0;
        for (const [from, to] of [...marked, [lower.length, lower.length]]) {
          for (const [start, stop] of [[at, Math.min(from, Math.max(at, end > 7 ? end : 0))], [Math.max(at, Math.min(from, end > 7 ? end : 0)), from]]) {
            if (stop > start) pre.append(make("span", { className: start < end && end > 7 ? "thinking" : "" }, sample.text.slice(start, stop)));
          }
          if (to > from) pre.append(make("span", { className: "hit" }, sample.text.slice(from, to)));
          at = to;
        }
        return;
      }
      let offset = 0, hit = 0;
      tokens.forEach((token, i) => {
        if (sample.left_out && i === sample.left_out[0]) pre.append(make("span", { className: "gap" }, ` [… ${sample.left_out[1].toLocaleString("en")} tokens …] `));
        while (hit < marked.length && marked[hit][1] <= offset) hit++;
        const over = token.length > 0 && hit < marked.length && marked[hit][0] < offset + token.length;
        const tint = state.colour === "advantage" ? ofAdvantage(sample.in_loss ? sample.advantage : 0) : state.colour === "surprise" ? ofSurprise(sample.logprobs[i]) : "";
        const span = make("span", { className: over ? "hit" : tint }, token);
        span.dataset.i = i;
        pre.append(span);
        offset += token.length;
      });
    }
    function card(sample) {
      const pre = make("pre", { tabIndex: 0 });
      text(sample, pre);
      const info = make("div", { className: "token" });
      function tell(span) {
        pre.querySelectorAll(".at").forEach((other) => other.classList.remove("at"));
        if (!span) return;
        span.classList.add("at");
        const i = +span.dataset.i, logprob = sample.logprobs[i];
        const words = [JSON.stringify(sample.texts[i])];
        if (logprob !== null && logprob !== undefined) words.push(`p ${figure(Math.exp(logprob))}`, `log p ${signed(logprob)}`);
        if (sample.advantage !== null) words.push(`advantage ${signed(sample.advantage)}`);
        info.textContent = words.join(" · ");
      }
      if (sample.texts) {
        for (const kind of ["pointerover", "click"]) pre.addEventListener(kind, (event) => { const span = event.target.closest("[data-i]"); if (span) tell(span); });
        pre.addEventListener("keydown", (event) => {
          const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
          if (!by) return;
          event.preventDefault();
          const at = pre.querySelector(".at");
          const next = pre.querySelector(`[data-i="${at ? +at.dataset.i + by : 0}"]`);
          if (next) { tell(next); next.scrollIntoView({ block: "nearest", inline: "nearest" }); }
        });
      }
      const bar = make("div", { className: "bar" },
        make("span", { className: "title" }, sample.title), make("span", { className: `verdict ${sample.verdict}` }, signs[sample.verdict]),
        sample.reward === null ? "" : make("span", {}, `reward ${figure(sample.reward)}`),
        sample.advantage === null ? "" : make("span", { className: `adv ${sample.in_loss ? ofAdvantage(sample.advantage) : ""}`, title: "advantage" }, `A ${signed(sample.advantage)}`),
        sample.tokens === null ? "" : make("span", {}, `${figure(sample.tokens)} tokens${sample.cut_off ? ", cut off" : ""}`),
        sample.in_loss ? "" : make("span", {}, "not in the loss"));
      const parts = Object.entries(sample.parts).map(([name, value]) => make("span", { className: "part" }, `${name} ${figure(value)}`));
      return make("div", { className: `sample${sample.in_loss ? "" : " outside"}` }, bar, pre, sample.texts ? info : "",
        make("div", {}, make("div", { className: "why", tabIndex: -1 }, sample.reason), ...parts));
    }

    // ---- steps that lie elsewhere
    function elsewhere(message) {
      const take = make("input", { type: "file", multiple: true, accept: ".json,.jsonl" });
      const folder = make("input", { type: "file", multiple: true, webkitdirectory: true });
      for (const input of [take, folder]) input.addEventListener("change", () => given([...input.files]));
      return make("div", { className: "elsewhere" }, make("p", {}, message),
        make("label", { className: "button" }, "Choose files …", take), make("label", { className: "button" }, "Choose the run's folder …", folder));
    }
    async function given(list) {
      let read = 0, last = null;
      for (const file of list) {
        const path = (file.webkitRelativePath || file.name).replace(/\\/g, "/");
        // A folder may be the run's, the stage's or that of the views: the end of the path tells.
        const one = stage.rollouts.find((other) => other.path.endsWith(path) || path.endsWith(other.path) || (path.split("/").length < 4 && other.path.split("/").slice(-2).join("/") === path.split("/").slice(-2).join("/")));
        if (!one || one.groups) { last = one || last; continue; }
        try { one.groups = readFile(await file.text(), file.name); read++; last = one; } catch { /* said below */ }
      }
      note.textContent = read ? `${read.toLocaleString("en")} more steps read.` : "None of these files is a rollout of this stage that the page lacks.";
      if (last) state.at = Math.max(0, held().indexOf(last));
      show();
    }
    async function ask(one) {
      const asked = ++state.asked;
      try {
        const answer = await fetch(one.path);
        if (!answer.ok) throw new Error(`${answer.status}`);
        one.groups = readFile(await answer.text(), one.path);
        if (asked === state.asked) show();
      } catch (error) {
        if (asked === state.asked) body.replaceChildren(elsewhere(`${one.path} can't be read beside this page (${error.message}). Choose it by hand:`));
      }
    }
    const note = make("p", { className: "hint", ariaLive: "polite" });
    const missing = stage.rollouts.filter((one) => !one.groups).length;
    if (missing) {
      note.textContent = online ? `${missing.toLocaleString("en")} of ${stage.rollouts.length.toLocaleString("en")} rollouts are read from the run's folder when they are asked for.`
        : `This page holds ${(stage.rollouts.length - missing).toLocaleString("en")} of ${stage.rollouts.length.toLocaleString("en")} rollouts. A browser does not let a page that was opened as a file read its neighbours: give it the others here, or serve the run's folder (python -m http.server) and open report.html there.`;
      const more = make("details", {}, make("summary", {}, "More steps"), note);
      if (!online) more.append(elsewhere(`They lie in ${stage.rollouts[0].path.split("/").slice(0, -1).join("/")}.`));
      place.append(online ? note : more);
    }

    // ---- searching what is here
    function look() {
      const query = state.query.toLowerCase();
      found.hidden = query.length < 2;
      if (found.hidden) return;
      const hits = [];
      const scan = (list, source, at, name) => list.forEach((group, number) => {
        const texts = [["prompt", group.prompt], ["answer", group.answer], ...group.samples.flatMap((sample) => [[sample.title, whole(sample)], [`${sample.title}, reason`, sample.reason]])];
        for (const [what, words] of texts) {
          const start = words.toLowerCase().indexOf(query);
          if (start >= 0) hits.push({ source, at, number, where: `${name}, ${group.heading}, ${what}`, words: (start > 40 ? "…" : "") + words.slice(Math.max(0, start - 40), start + 90) });
        }
      });
      held().forEach((one, at) => one.groups && scan(one.groups, "rollouts", at, called(one)));
      scan(stage.benchmarks, "benchmarks", 0, "benchmark");
      found.replaceChildren(...hits.slice(0, most.hits).map((hit) => {
        const button = make("button", { type: "button" }, make("b", {}, hit.where), hit.words);
        button.addEventListener("click", () => { state.source = hit.source; if (hit.source === "rollouts") state.at = hit.at; state.group = hit.number; show(); });
        return make("li", {}, button);
      }), make("li", { className: "hint", style: "padding: 6px 12px" }, hits.length > most.hits ? `${hits.length.toLocaleString("en")} places, the first ${most.hits} shown.` : `${hits.length} place${hits.length === 1 ? "" : "s"} in the steps that are here.`));
    }

    // ---- drawing
    function show() {
      const training = state.source === "rollouts", list = groups(), one = entry();
      state.group = Math.min(state.group, Math.max(0, list.length - 1));
      steps.hidden = !training || held().length === 0;
      steps.style.display = steps.hidden ? "none" : "";
      slider.max = Math.max(0, held().length - 1);
      slider.value = state.at;
      label.textContent = one ? called(one) : "";
      slider.ariaValueText = label.textContent;
      back.disabled = state.at <= 0;
      onward.disabled = state.at >= held().length - 1;
      sources.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", button.dataset.source === state.source));
      tabs.replaceChildren(...list.map((group, i) => {
        const button = make("button", { type: "button", className: "button", role: "tab", title: "right samples of those shown" }, `${group.heading} · ${group.samples.filter((sample) => sample.verdict === "right").length}/${group.samples.length} ✓`);
        button.setAttribute("aria-selected", i === state.group);
        button.addEventListener("click", () => { state.group = i; show(); tabs.children[i].focus(); });
        return button;
      }));
      const group = list[state.group];
      const coloured = training && group && group.samples.some((sample) => sample.texts);
      colouring.style.display = coloured ? "" : "none";
      const hint = make("span", {}, touch ? "Touch a token for its probability." : "Point at a token for its probability, or step through with ← →.");
      const boxes = (letters) => letters.map((name) => make("span", { className: name }));
      key.replaceChildren(...(!coloured || !state.colour ? [] : state.colour === "advantage"
        ? [make("span", {}, ...boxes(["n4", "n2"]), " advantage below 0: made rarer"), make("span", {}, ...boxes(["p2", "p4"]), " above 0: made likelier"), make("span", {}, "no colour: no gradient"), hint]
        : [make("span", {}, ...boxes(["s1", "s2", "s3", "s4"]), " the less likely the token was, the darker (p under 0.9, 0.5, 0.2, 0.05)"), hint]));
      if (!group) {
        if (training && one && one.groups === null) { body.replaceChildren(make("p", { className: "hint" }, "Reading …")); ask(one); }
        else body.replaceChildren(make("p", { className: "hint" }, "No samples are here."));
        return;
      }
      const samples = group.samples.filter((sample) => !state.verdict || sample.verdict === state.verdict);
      body.replaceChildren(group.prompt ? make("pre", { className: "prompt", tabIndex: 0 }, group.prompt) : "",
        group.answer ? make("p", { className: "answer" }, "right answer: ", make("b", {}, group.answer)) : "",
        make("div", { className: "samples" }, ...samples.map(card)),
        samples.length ? "" : make("p", { className: "hint" }, `No sample of this prompt is ${state.verdict}.`));
    }

    function to(at) { state.at = Math.max(0, Math.min(held().length - 1, at)); show(); }
    slider.addEventListener("input", () => to(+slider.value));
    back.addEventListener("click", () => to(state.at - 1));
    onward.addEventListener("click", () => to(state.at + 1));
    colouring.addEventListener("change", () => { state.colour = colouring.value; show(); });
    verdicts.addEventListener("change", () => { state.verdict = verdicts.value; show(); });
    let waiting;
    search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => { state.query = search.value.trim(); look(); show(); }, 150); });
    show();
  }

  document.querySelectorAll(".viewer").forEach(view);
})();
